//! How KV writes reach the server: publishes with a reply subject under one inbox of the writer's own, so that a
//! thousand acknowledgements can be on their way and none costs an entry in the client's table of requests. Each is acknowledged
//! by itself, or in a batch.

use super::actor::{Completion, Ends, Outcome, Transport};
use super::failure::{Ack, Fault, parse_ack};
use super::ingest::{self, Found, Held, Ingest, Place, Task};
use super::queue::{Limits, Token};
use super::readback::read_back;
use super::{Write, WriteAction, WriterLimits};
use crate::store::bucket::Provisioned;
use crate::store::stream::Stream;
use crate::wire::header::{CONTENT_TYPE, WRITE};
use async_nats::client::PublishErrorKind;
use async_nats::header::{
    HeaderName, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID,
};
use async_nats::jetstream::Context as JetStream;
use async_nats::message::OutboundMessage;
use async_nats::{
    HeaderMap, HeaderValue, Message, PublishError, Request, StatusCode, Subject, Subscriber,
};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

pub(super) const KV_OPERATION: HeaderName = HeaderName::from_static("KV-Operation");
const CONTENT_TYPE_NAME: HeaderName = HeaderName::from_static(CONTENT_TYPE);
const WRITE_NAME: HeaderName = HeaderName::from_static(WRITE);
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
    id: Arc<str>,
    ingest: Ingest,
    /// Of the bucket, to be read where a batch was lost; and whether it keeps more than the last value of a key.
    stream: Stream,
    keeps_only_the_last: bool,
    reading: Option<BoxFuture<'static, Vec<(Held, Found)>>>,
    ack_timeout: Duration,
    /// A publish that waits for room in the client; no other one is begun before it. The end of a batch is nobody's.
    sending: Option<(Option<Token>, Publish)>,
    /// Where subjects are written.
    texts: BytesMut,
    /// The headers of the last value, but for what is its own: to copy them costs half of making them.
    typed: (&'static str, HeaderMap),
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
        batches: bool,
    ) -> Result<Self, async_nats::SubscribeError> {
        let client = js.client();
        let inbox = client.new_inbox();
        let acks = client.subscribe(format!("{inbox}.>")).await?;
        // What makes an inbox unique makes the ids unique.
        let id = inbox.rsplit('.').next().unwrap_or(&inbox).into();
        let batches = batches && bucket.fast_ingest && !bucket.through_api;
        Ok(Self {
            js: Arc::new(js.clone()),
            client,
            prefix: bucket.put_prefix.clone(),
            through_api: bucket.through_api,
            acks,
            id,
            ingest: Ingest::new(batches, RandomState::new().hash_one(&inbox), Instant::now()),
            stream: Stream::new(js.clone(), bucket.kind, &bucket.name),
            keeps_only_the_last: bucket.keeps_only_the_last(),
            reading: None,
            ack_timeout: Duration::ZERO,
            sending: None,
            inbox: format!("{inbox}."),
            texts: BytesMut::with_capacity(TEXTS),
            typed: ("", HeaderMap::new()),
            failed: Vec::new(),
            closed: false,
        })
    }

    fn headers(&mut self, token: Token, write: &Write, place: Option<Place>) -> HeaderMap {
        let mut headers = match &write.action {
            WriteAction::Put(_) | WriteAction::PutIf(_) => self.typed(write.content_type),
            WriteAction::Delete => HeaderMap::new(),
        };
        // A batch needs no message ids, but for its beginning; a name, where there has to be one, costs the server less.
        let id = match place {
            Some(place) if !place.begins() => place.named.then_some(WRITE_NAME),
            _ => Some(NATS_MESSAGE_ID),
        };
        // No conversion here can panic: the texts are constants, and the id is letters and digits.
        if let Some(id) = id {
            headers.insert(id, self.name(token));
        }
        match &write.action {
            WriteAction::Put(_) => {}
            WriteAction::Delete => headers.insert(KV_OPERATION, HeaderValue::from("DEL")),
            WriteAction::PutIf(conditional) => {
                let expected = HeaderValue::from(conditional.expected);
                headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected);
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

    fn typed(&mut self, content_type: &'static str) -> HeaderMap {
        if self.typed.0 != content_type {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE_NAME, content_type);
            self.typed = (content_type, headers);
        }
        self.typed.1.clone()
    }

    /// What a write is called in its headers.
    fn name(&self, token: Token) -> String {
        const DIGITS: usize = 20;
        let mut name = String::with_capacity(self.id.len() + 1 + DIGITS);
        name.push_str(&self.id);
        // Writing into memory does not fail.
        let _ = write!(name, "-{}", token.id);
        name
    }

    /// Writes a subject into memory that many messages share.
    fn text(&mut self, write: impl FnOnce(&Self, &mut BytesMut) -> std::fmt::Result) -> Subject {
        let mut texts = std::mem::take(&mut self.texts);
        if texts.capacity() < TEXTS / 16 {
            texts = BytesMut::with_capacity(TEXTS);
        }
        // Writing into memory that grows does not fail.
        let _ = write(self, &mut texts);
        let text = texts.split().freeze();
        self.texts = texts;
        // It was written as text.
        Subject::from_utf8(text).unwrap_or_else(|_| Subject::from_static(""))
    }

    fn reply(&mut self, token: Token, place: Option<Place>) -> Subject {
        self.text(|this, to| {
            to.write_str(&this.inbox)?;
            match place {
                Some(place) => this.ingest.reply(place, to),
                None => write!(to, "{}-{}", token.lane, token.id),
            }
        })
    }

    /// Does what is to be done for the batches.
    fn tend(&mut self, now: Instant) {
        while self.sending.is_none() && !self.closed {
            match self.ingest.task(now) {
                None => return,
                Some(Task::Read(held)) => {
                    let (stream, id) = (self.stream.clone(), self.id.clone());
                    let last = self.keeps_only_the_last;
                    self.reading = Some(read_back(stream, id, last, held).boxed());
                }
                Some(Task::End { subject, reply }) => {
                    let reply = self.text(|this, to| write!(to, "{}{reply}", this.inbox));
                    let mut headers = HeaderMap::new();
                    // A batch's end is not stored, and its headers are not looked at; a server that took it for a write would
                    // refuse it by this one.
                    headers.insert(NATS_EXPECTED_STREAM, "none");
                    let end = OutboundMessage {
                        subject,
                        reply: Some(reply),
                        payload: Bytes::new(),
                        headers: Some(headers),
                    };
                    self.sending = Some((None, Publish::Message(end)));
                    self.send(&mut Context::from_waker(Waker::noop()));
                }
            }
        }
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

    fn sent(&mut self, token: Option<Token>, outcome: Result<(), PublishError>) {
        let (Some(token), Err(error)) = (token, outcome) else {
            return;
        };
        self.ingest.unsent(token);
        let fault = match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                Fault::permanent(format!("larger than a message may be: {error}"))
            }
            PublishErrorKind::InvalidSubject => Fault::permanent(error.to_string()),
            PublishErrorKind::Send => Fault::transient("the connection is closed"),
        };
        self.failed.push((token, Outcome::Failed(fault)));
    }

    /// Reads what came to `<inbox>.<lane>-<id>`, or to the place of a batch.
    fn answered(&mut self, message: &Message, now: Instant, completions: &mut Vec<Completion>) {
        let Some(place) = message.subject.strip_prefix(&self.inbox) else {
            return;
        };
        let unanswered = message.status == Some(StatusCode::NO_RESPONDERS);
        let fault = || Fault::transient("no stream takes this key (no responders)");
        if place.ends_with(".$FI") {
            let answer = match unanswered {
                true => Err(fault()),
                false => Ack::parse(&message.payload),
            };
            self.ingest.answered(place, answer, now, completions);
            return;
        }
        let Some((lane, id)) = place.split_once('-') else {
            return;
        };
        let (Ok(lane), Ok(id)) = (lane.parse(), id.parse()) else {
            return;
        };
        let outcome = match unanswered {
            true => Err(fault()),
            false => parse_ack(&message.payload),
        };
        let outcome = match outcome {
            Ok(revision) => {
                self.ingest.saw(revision);
                Outcome::Written(Some(revision))
            }
            Err(fault) => Outcome::Failed(fault),
        };
        completions.push((Token { lane, id }, outcome));
    }
}

impl Transport for Kv {
    fn limits(&mut self, limits: &WriterLimits, newest_wins: bool) -> Limits {
        self.ack_timeout = limits.ack_timeout;
        Limits {
            window: match self.ingest.is_enabled() {
                true => ingest::WINDOW,
                false => limits.window,
            },
            window_bytes: WINDOW_BYTES,
            ack_timeout: limits.ack_timeout,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            newest_wins,
        }
    }

    fn can_start(&self) -> bool {
        self.sending.is_none() && !self.closed
    }

    fn start(&mut self, token: Token, write: &Write, patient: bool, now: Instant) -> Ends {
        // Keys were checked where they came from. White space would end the subject and begin another protocol line, so this
        // is looked at once more where it would do harm.
        if !write.key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let fault = Fault::permanent("the key is no subject");
            self.failed.push((token, Outcome::Failed(fault)));
            return Ends::ByItself;
        }
        let subject = self.text(|this, to| {
            to.write_str(&this.prefix)?;
            to.write_str(&write.key)
        });
        let place = match write.action {
            WriteAction::Put(_) | WriteAction::Delete if patient => {
                let value = write.value().filter(|_| self.keeps_only_the_last);
                let open_for = self.ack_timeout;
                self.ingest.place(token, &subject, value, open_for, now)
            }
            _ => None,
        };
        let reply = self.reply(token, place);
        let headers = self.headers(token, write, place);
        let payload = write.value().cloned().unwrap_or_default();
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
        self.sending = Some((Some(token), publish));
        // Whether there is room at once; whoever is to be woken when there is none comes with `poll`.
        self.send(&mut Context::from_waker(Waker::noop()));
        match place {
            Some(place) if !place.begins() => Ends::WithTransport,
            // It has a message id, and may be sent again without its batch.
            _ => Ends::ByItself,
        }
    }

    fn round(&mut self, hurry: bool, now: Instant) {
        self.ingest.round(hurry, now);
        self.tend(now);
    }

    fn reconnected(&mut self, now: Instant) {
        self.ingest.reconnected(now);
    }

    fn wakeup(&self) -> Option<Instant> {
        self.ingest.wakeup()
    }

    fn poll(&mut self, cx: &mut Context<'_>, completions: &mut Vec<Completion>) -> Poll<()> {
        let mut progress = false;
        if self.sending.is_some() {
            self.send(cx);
            progress = self.sending.is_none();
        }
        completions.append(&mut self.failed);
        if let Some(reading) = &mut self.reading
            && let Poll::Ready(found) = reading.poll_unpin(cx)
        {
            self.reading = None;
            self.ingest.found(found, completions);
        }
        let mut now = None;
        while !self.closed && completions.len() < BATCH {
            match self.acks.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => {
                    let now = *now.get_or_insert_with(Instant::now);
                    self.answered(&message, now, completions);
                    progress = true;
                }
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
