//! How objects reach the server: a few uploads at a time, each of which waits for its own acknowledgements.

use super::actor::{Completion, Ends, Outcome, Transport};
use super::failure::Fault;
use super::queue::{Limits, Token};
use super::{Write, WriteAction, WriterLimits};
use crate::store::StoreError;
use crate::store::object::{delete, upload};
use async_nats::jetstream::Context as JetStream;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

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
    fn limits(&mut self, _limits: &WriterLimits, newest_wins: bool) -> Limits {
        Limits {
            window: WINDOW,
            window_bytes: usize::MAX,
            ack_timeout: BASE_TIMEOUT,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            newest_wins,
        }
    }

    fn can_start(&self) -> bool {
        true
    }

    fn start(&mut self, token: Token, write: &Write, _patient: bool, _now: Instant) -> Ends {
        let (js, bucket, write) = (self.js.clone(), self.bucket.clone(), write.clone());
        let seconds = write.size() / BYTES_PER_SECOND;
        let timeout = BASE_TIMEOUT + Duration::from_secs(seconds as u64);
        self.uploads.push(Box::pin(async move {
            let attempt = async {
                match &write.action {
                    WriteAction::Put(value) => {
                        let (content_type, trace) = (write.content_type, &write.trace);
                        upload(&js, &bucket, &write.key, content_type, trace, value.clone())
                            .await
                            .map(drop)
                    }
                    // One that is not there is deleted already.
                    WriteAction::Delete => delete(&js, &bucket, &write.key).await.map(drop),
                    WriteAction::PutIf(_) => Err(StoreError::ObjectName {
                        name: write.key.clone(),
                        reason: "conditional writes are for key-value buckets",
                    }),
                }
            };
            let outcome = tokio::time::timeout(timeout, attempt).await;
            let outcome = outcome.unwrap_or(Err(StoreError::Timeout));
            let outcome = match outcome {
                Ok(()) => Outcome::Written(None),
                Err(error) => Outcome::Failed(fault(error)),
            };
            (token, outcome)
        }));
        Ends::WithTransport
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

/// Which failures of the object engine are worth another attempt.
fn fault(error: StoreError) -> Fault {
    let text = error.to_string();
    match error {
        StoreError::ObjectName { .. } | StoreError::BucketName { .. } | StoreError::Sealed => {
            Fault::permanent(text)
        }
        // The upload ended before its metadata was sent.
        StoreError::Unavailable { .. }
        | StoreError::BucketNotFound { .. }
        | StoreError::Conflict { .. } => Fault::transient(text),
        _ => Fault::in_doubt(text),
    }
}
