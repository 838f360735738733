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
use async_nats::message::OutboundMessage;
use async_nats::{
    HeaderMap, HeaderValue, Message, PublishError, Request, StatusCode, Subject, Subscriber,
};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _, future::BoxFuture};
use std::fmt::Write as _;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const KV_OPERATION: HeaderName = HeaderName::from_static("KV-Operation");
const CONTENT_TYPE_NAME: HeaderName = HeaderName::from_static(CONTENT_TYPE);
const EXPECTED: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence");
/// Bytes in flight. A replicated stream fails when far more than that is unacknowledged (measured).
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Bytes for subjects that are allocated at a time.
const TEXTS: usize = 16 * 1024;
/// So many acknowledgements are read at a time, before other work gets its turn.
const BATCH: usize = 512;

pub(super) struct Kv {
    js: Arc<JetStream>,
    client: async_nats::Client,
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
    sending: Option<(Token, Publish)>,
    /// Where subjects are written.
    texts: BytesMut,
    failed: Vec<Completion>,
    closed: bool,
}

/// A publish on its way into the client.
enum Publish {
    Message(OutboundMessage),
    Request(BoxFuture<'static, Result<(), PublishError>>),
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
            client,
            prefix: bucket.put_prefix.clone(),
            through_api: bucket.through_api,
            inbox: format!("{inbox}."),
            acks,
            id,
            sending: None,
            texts: BytesMut::with_capacity(TEXTS),
            failed: Vec::new(),
            closed: false,
        })
    }

    fn headers(&self, token: Token, write: &Write) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // No conversion here can panic: the texts are constants, and the id is letters and digits.
        headers.insert(NATS_MESSAGE_ID, format!("{}-{}", self.id, token.id));
        match &write.action {
            WriteAction::Put(_) => headers.insert(CONTENT_TYPE_NAME, write.content_type),
            WriteAction::Delete => headers.insert(KV_OPERATION, HeaderValue::from("DEL")),
            WriteAction::PutIf(conditional) => {
                headers.insert(CONTENT_TYPE_NAME, write.content_type);
                headers.insert(EXPECTED, HeaderValue::from(conditional.expected));
                if conditional.marker {
                    headers.insert(KV_OPERATION, HeaderValue::from("DEL"));
                }
                for (name, value) in &conditional.headers {
                    if let Ok(value) = value.parse::<HeaderValue>() {
                        headers.insert(*name, value);
                    }
                }
            }
        }
        write.trace.write(&mut headers);
        headers
    }

    /// The subject of the bucket, and the one for the acknowledgement, in memory that many messages share.
    fn subjects(&mut self, token: Token, write: &Write) -> Option<(Subject, Subject)> {
        let (prefix, inbox, texts) = (&self.prefix, &self.inbox, &mut self.texts);
        if texts.capacity() < TEXTS / 16 {
            *texts = BytesMut::with_capacity(TEXTS);
        }
        let mut subject = |text: std::fmt::Arguments<'_>| {
            // Writing into memory that grows does not fail.
            let _ = texts.write_fmt(text);
            Subject::from_utf8(texts.split().freeze()).ok()
        };
        let of_key = subject(format_args!("{prefix}{}", write.key))?;
        let of_ack = subject(format_args!("{inbox}{}-{}", token.lane, token.id))?;
        Some((of_key, of_ack))
    }

    /// Goes on with the publish that waits for room, if one does.
    fn send(&mut self, cx: &mut Context<'_>) {
        let Some((token, publish)) = self.sending.take() else {
            return;
        };
        let outcome = match publish {
            Publish::Message(message) => match self.client.poll_ready_unpin(cx) {
                Poll::Pending => {
                    self.sending = Some((token, Publish::Message(message)));
                    return;
                }
                Poll::Ready(Ok(())) => self.client.start_send_unpin(message),
                Poll::Ready(Err(error)) => Err(error),
            },
            Publish::Request(mut request) => match request.poll_unpin(cx) {
                Poll::Pending => {
                    self.sending = Some((token, Publish::Request(request)));
                    return;
                }
                Poll::Ready(outcome) => outcome,
            },
        };
        self.sent(token, outcome);
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
        let Some((subject, reply)) = self.subjects(token, write) else {
            let fault = Fault::permanent("the key is no text");
            self.failed.push((token, Err(fault)));
            return;
        };
        let headers = self.headers(token, write);
        let payload = match &write.action {
            WriteAction::Put(value) => value.clone(),
            WriteAction::Delete => Bytes::new(),
            WriteAction::PutIf(conditional) => conditional.body.clone(),
        };
        let publish = if self.through_api {
            let js = self.js.clone();
            let mut request = Request::new().payload(payload).headers(headers);
            request.inbox = Some(reply.into_string());
            Publish::Request(async move { js.send_request(subject, request).await }.boxed())
        } else {
            Publish::Message(OutboundMessage {
                subject,
                reply: Some(reply),
                payload,
                headers: Some(headers),
            })
        };
        self.sending = Some((token, publish));
        // Whether there is room at once; whoever is to be woken when there is none comes with `poll`.
        self.send(&mut Context::from_waker(Waker::noop()));
    }

    fn poll(&mut self, cx: &mut Context<'_>, completions: &mut Vec<Completion>) -> Poll<()> {
        let mut progress = false;
        if self.sending.is_some() {
            self.send(cx);
            progress = self.sending.is_none();
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
