//! How objects reach the server: a few uploads at a time, each of which waits for its own acknowledgements.

use super::actor::{Completion, Transport};
use super::failure::Fault;
use super::queue::{Limits, Token};
use super::{Write, WriteAction, WriterLimits};
use async_nats::jetstream::Context as JetStream;
use async_nats::jetstream::object_store::{self, DeleteErrorKind, ObjectMetadata, PutErrorKind};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Uploads at once. Each has several messages in flight itself.
const WINDOW: usize = 4;
/// How long an upload may take: this, and a second for each `BYTES_PER_SECOND`. A connection that breaks in an upload
/// leaves it waiting otherwise.
const BASE_TIMEOUT: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND: usize = 1024 * 1024;

pub(super) struct Objects {
    js: JetStream,
    bucket: Arc<str>,
    uploads: FuturesUnordered<BoxFuture<'static, Completion>>,
}

impl Objects {
    pub(super) fn new(js: &JetStream, bucket: &str) -> Self {
        Self {
            js: js.clone(),
            bucket: bucket.into(),
            uploads: FuturesUnordered::new(),
        }
    }
}

impl Transport for Objects {
    fn limits(&self, _limits: &WriterLimits, newest_wins: bool) -> Limits {
        Limits {
            window: WINDOW,
            window_bytes: usize::MAX,
            ack_timeout: None,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            newest_wins,
        }
    }

    fn can_start(&self) -> bool {
        true
    }

    fn start(&mut self, token: Token, write: &Write) {
        let (js, bucket, write) = (self.js.clone(), self.bucket.clone(), write.clone());
        let seconds = write.size() / BYTES_PER_SECOND;
        let timeout = BASE_TIMEOUT + Duration::from_secs(seconds as u64);
        self.uploads.push(Box::pin(async move {
            let attempt = async {
                match &write.action {
                    WriteAction::Put(value) => {
                        object_put(&js, &bucket, &write.key, write.content_type, value).await
                    }
                    WriteAction::Delete => object_delete(&js, &bucket, &write.key).await,
                }
            };
            let outcome = tokio::time::timeout(timeout, attempt).await;
            let outcome = outcome.unwrap_or_else(|_| Err(Fault::ack_timeout()));
            (token, outcome.map(|()| 0))
        }));
    }

    fn poll(&mut self, cx: &mut Context<'_>, completions: &mut Vec<Completion>) -> Poll<()> {
        while let Poll::Ready(Some(completion)) = self.uploads.poll_next_unpin(cx) {
            completions.push(completion);
        }
        if completions.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

async fn open(js: &JetStream, bucket: &str) -> Result<object_store::ObjectStore, Fault> {
    let store = js.get_object_store(bucket).await;
    store.map_err(|error| Fault::transient(format!("the bucket cannot be opened: {error}")))
}

/// Stores one object.
async fn object_put(
    js: &JetStream,
    bucket: &str,
    name: &str,
    content_type: &str,
    value: &[u8],
) -> Result<(), Fault> {
    let store = open(js, bucket).await?;
    let mut headers = async_nats::HeaderMap::new();
    let content_type = content_type
        .parse::<async_nats::HeaderValue>()
        .map_err(|error| Fault::permanent(error.to_string()))?;
    headers.insert(crate::wire::header::CONTENT_TYPE, content_type);
    let metadata = ObjectMetadata {
        name: name.to_owned(),
        headers: Some(headers),
        metadata: HashMap::new(),
        ..ObjectMetadata::default()
    };
    let mut value = value;
    match store.put(metadata, &mut value).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == PutErrorKind::InvalidName => {
            Err(Fault::permanent(error.to_string()))
        }
        Err(error) => Err(Fault::in_doubt(error.to_string())),
    }
}

/// Deletes one object; one that is not there is deleted already.
async fn object_delete(js: &JetStream, bucket: &str, name: &str) -> Result<(), Fault> {
    let store = open(js, bucket).await?;
    match store.delete(name).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == DeleteErrorKind::NotFound => Ok(()),
        Err(error) => Err(Fault::in_doubt(error.to_string())),
    }
}
