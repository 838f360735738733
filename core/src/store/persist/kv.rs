//! How KV writes reach the server: publishes with a reply subject under one inbox of the writer's own, so that a
//! thousand acknowledgements can be on their way and none costs an entry in the client's table of requests.

use super::actor::{Completion, Transport};
use super::failure::{Fault, parse_ack};
use super::queue::{Limits, Token};
use super::{Write, WriteAction, WriterLimits};
use crate::store::bucket::Provisioned;
use crate::wire::header::CONTENT_TYPE;
use async_nats::client::PublishErrorKind;
use async_nats::header::{HeaderName, NATS_MESSAGE_ID};
use async_nats::jetstream::Context as JetStream;
use async_nats::{HeaderMap, HeaderValue, Message, PublishError, Request, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

const KV_OPERATION: HeaderName = HeaderName::from_static("KV-Operation");
const CONTENT_TYPE_NAME: HeaderName = HeaderName::from_static(CONTENT_TYPE);
/// Bytes in flight. A replicated stream fails when far more than that is unacknowledged (measured).
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// So many acknowledgements are read at a time, before other work gets its turn.
const BATCH: usize = 512;

pub(super) struct Kv {
    js: Arc<JetStream>,
    client: Arc<async_nats::Client>,
    /// `$KV.<bucket>.`
    prefix: String,
    /// The subject goes under the JetStream API's prefix: a domain, or an import from another account.
    through_api: bool,
    /// `<inbox>.`
    inbox: String,
    acks: Subscriber,
    /// Random and of this writer; with a write's number it is the message id of all its attempts.
    id: String,
    /// A publish that waits for room in the client; no other one is begun before it.
    sending: Option<(Token, BoxFuture<'static, Result<(), PublishError>>)>,
    failed: Vec<Completion>,
    closed: bool,
}

impl Kv {
    pub(super) async fn open(
        js: &JetStream,
        bucket: &Provisioned,
    ) -> Result<Self, async_nats::SubscribeError> {
        let client = js.client();
        let inbox = client.new_inbox();
        let acks = client.subscribe(format!("{inbox}.*")).await?;
        // What makes an inbox unique makes the ids unique.
        let id = inbox.rsplit('.').next().unwrap_or(&inbox).to_owned();
        Ok(Self {
            js: Arc::new(js.clone()),
            client: Arc::new(client),
            prefix: bucket.put_prefix.clone(),
            through_api: bucket.through_api,
            inbox: format!("{inbox}."),
            acks,
            id,
            sending: None,
            failed: Vec::new(),
            closed: false,
        })
    }

    fn headers(&self, token: Token, write: &Write) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // No conversion here can panic: the texts are constants, and the id is letters and digits.
        headers.insert(NATS_MESSAGE_ID, format!("{}-{}", self.id, token.id));
        match write.action {
            WriteAction::Put(_) => headers.insert(CONTENT_TYPE_NAME, write.content_type),
            WriteAction::Delete => headers.insert(KV_OPERATION, HeaderValue::from("DEL")),
        }
        headers
    }

    fn sent(&mut self, token: Token, outcome: Result<(), PublishError>) {
        let Err(error) = outcome else { return };
        let fault = match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                Fault::permanent(format!("larger than a message may be: {error}"))
            }
            PublishErrorKind::InvalidSubject => Fault::permanent(error.to_string()),
            PublishErrorKind::Send => Fault::transient("the connection is closed"),
        };
        self.failed.push((token, Err(fault)));
    }

    /// Reads `<inbox>.<lane>-<id>`, and what it was answered with.
    fn completion(&self, message: &Message) -> Option<Completion> {
        let (lane, id) = message.subject.strip_prefix(&self.inbox)?.split_once('-')?;
        let token = Token {
            lane: lane.parse().ok()?,
            id: id.parse().ok()?,
        };
        let outcome = match message.status {
            Some(StatusCode::NO_RESPONDERS) => {
                Err(Fault::transient("no stream takes this key (no responders)"))
            }
            _ => parse_ack(&message.payload),
        };
        Some((token, outcome))
    }
}

impl Transport for Kv {
    fn limits(&self, limits: &WriterLimits, newest_wins: bool) -> Limits {
        Limits {
            window: limits.window,
            window_bytes: WINDOW_BYTES,
            ack_timeout: Some(limits.ack_timeout),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            newest_wins,
        }
    }

    fn can_start(&self) -> bool {
        self.sending.is_none() && !self.closed
    }

    fn start(&mut self, token: Token, write: &Write) {
        // Keys come from a template, which checked them. A white space would end the subject and begin another protocol
        // line, so this is looked at once more where it would do harm.
        if let Err(error) = crate::store::check_key(&write.key) {
            let fault = Fault::permanent(error.to_string());
            self.failed.push((token, Err(fault)));
            return;
        }
        let subject = format!("{}{}", self.prefix, write.key);
        let reply = format!("{}{}-{}", self.inbox, token.lane, token.id);
        let headers = self.headers(token, write);
        let payload = match &write.action {
            WriteAction::Put(value) => value.clone(),
            WriteAction::Delete => Bytes::new(),
        };
        let mut publish = if self.through_api {
            let js = self.js.clone();
            let mut request = Request::new().payload(payload).headers(headers);
            request.inbox = Some(reply);
            async move { js.send_request(subject, request).await }.boxed()
        } else {
            let client = self.client.clone();
            async move {
                let publish =
                    client.publish_with_reply_and_headers(subject, reply, headers, payload);
                publish.await
            }
            .boxed()
        };
        match (&mut publish).now_or_never() {
            Some(outcome) => self.sent(token, outcome),
            None => self.sending = Some((token, publish)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, completions: &mut Vec<Completion>) -> Poll<()> {
        let mut progress = false;
        if let Some((token, publish)) = &mut self.sending
            && let Poll::Ready(outcome) = publish.poll_unpin(cx)
        {
            let token = *token;
            self.sending = None;
            self.sent(token, outcome);
            progress = true;
        }
        completions.append(&mut self.failed);
        while !self.closed && completions.len() < BATCH {
            match self.acks.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => completions.extend(self.completion(&message)),
                Poll::Ready(None) => {
                    // The client was closed or drained under the writer. What is pending waits for the drain's deadline.
                    tracing::error!(prefix = %self.prefix, "the connection was closed while the writer still had it");
                    self.closed = true;
                }
                Poll::Pending => break,
            }
        }
        if progress || !completions.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
