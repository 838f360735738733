//! What is sent for a call and what comes back, as bytes: the same for every method, and compiled once.

use super::ClientCore;
use super::argument::Body;
use super::error::CallError;
use super::retry::{self, Retry};
use super::transport::connection;
use crate::connection::{ConnectionEvents, Denial};
#[cfg(feature = "tower")]
use crate::layer::Wants;
use crate::store::{self, ObjectReader, StoreError};
use crate::telemetry::{self, WatchedCall};
use crate::wire::codec::{Codec, CodecError};
use crate::wire::error::Error;
use crate::wire::error_reply;
use crate::wire::header;
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, StatusCode, Subject};
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument as _;

/// Whatever keeps a call from its answer. `Service` is an error reply that nobody has looked at yet.
pub(super) type Failure = CallError<Error>;

/// An answer that is not decoded yet.
pub(super) struct Received {
    pub(super) codec: Codec,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    pub(super) attempts: u32,
}

pub(super) enum Content {
    Bytes(Bytes),
    Stream(ByteStream),
}

/// What is to be sent, and how long its answer may take.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) core: ClientCore,
    pub(super) spec: &'static MethodSpec,
    pub(super) body: Bytes,
    /// Why it cannot be sent.
    pub(super) wrong: Option<Box<Failure>>,
    pub(super) timeout: Duration,
    /// It may happen twice.
    pub(super) idempotent: bool,
    /// When it is repeated, instead of what the client has.
    pub(super) retry: Option<Box<Retry>>,
    pub(super) deadline: Option<Instant>,
    pub(super) headers: Option<Arc<HeaderMap>>,
    /// The answer is to be read as it comes.
    pub(super) streams: bool,
}

/// An exchange that goes on.
pub(super) type Exchanging = Pin<Box<dyn Future<Output = Result<Received, Failure>> + Send>>;

impl Exchange {
    pub(super) fn new(
        core: &ClientCore,
        spec: &'static MethodSpec,
        body: Body<'_>,
        streams: bool,
    ) -> Self {
        let (body, wrong) = match core.encode(spec, body) {
            Ok(body) => (body, None),
            Err(error) => (Bytes::new(), Some(Box::new(CallError::Encode(error)))),
        };
        Self {
            core: core.clone(),
            spec,
            body,
            wrong,
            timeout: core.timeout.unwrap_or(spec.timeout),
            idempotent: spec.idempotent,
            retry: None,
            deadline: core.deadline,
            headers: core.headers.clone(),
            streams,
        }
    }

    /// Sends a header along.
    pub(super) fn header(&mut self, name: &str, value: &str) {
        match header::checked(name, value) {
            Ok((name, value)) => {
                Arc::make_mut(self.headers.get_or_insert_default()).insert(name, value);
            }
            // The first mistake is told.
            Err(error) => {
                let failure = || Box::new(CallError::Header(error));
                self.wrong.get_or_insert_with(failure);
            }
        }
    }

    /// Boxed, so that it is compiled with this crate: a future that is not is compiled with whoever polls it.
    pub(super) fn run(self) -> Exchanging {
        Box::pin(async move {
            match telemetry::watches_calls() {
                false => self.run_unwatched().await,
                // Boxed, so that a call that nobody watches has no room for this in it.
                true => Box::pin(self.run_watched()).await,
            }
        })
    }

    async fn run_watched(self) -> Result<Received, Failure> {
        let mut watched = WatchedCall::new(self.spec, self.subject());
        let span = watched.span().clone();
        let received = self.run_unwatched().instrument(span).await;
        watched.says(received.as_ref().err().map(CallError::code));
        received
    }

    async fn run_unwatched(mut self) -> Result<Received, Failure> {
        self.begin()?;
        let policy = match &self.retry {
            Some(policy) => **policy,
            None => self.core.retrying.policy,
        };
        match (self.idempotent && policy.repeats()).then_some(policy) {
            None => self.attempt(self.timeout).await,
            // Boxed, so that a call that is sent once has no room for this in it.
            Some(policy) => Box::pin(retry::run(self, policy)).await,
        }
    }

    /// Where it goes.
    pub(super) fn subject(&self) -> Subject {
        self.core.subject(self.spec)
    }

    /// Sees whether it is to be sent at all, and for how long.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.wrong.take() {
            return Err(*failure);
        }
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let subject = self.subject();
                return Err(CallError::Late { subject });
            }
            self.timeout = self.timeout.min(left);
        }
        Ok(())
    }

    /// Sends it once.
    pub(super) async fn attempt(&self, limit: Duration) -> Result<Received, Failure> {
        let sent = async {
            match &self.core.events {
                None => self.send(limit).await,
                // Boxed, so that a call on a connection that nobody watches has no room for this in it.
                Some(events) => Box::pin(self.send_unless_denied(events, limit)).await,
            }
        };
        match tokio::time::timeout(limit, sent).await {
            Ok(received) => received,
            Err(_) => Err(CallError::Timeout {
                subject: self.subject(),
                after: limit,
            }),
        }
    }

    /// Sends it, and ends when the server says that it is denied: no reply would ever come.
    async fn send_unless_denied(
        &self,
        events: &ConnectionEvents,
        limit: Duration,
    ) -> Result<Received, Failure> {
        let (begun, own) = (Instant::now(), self.subject());
        let inboxes = self.core.transport.inbox_prefix();
        let denied = events.wait(|at, denial| match denial {
            Denial::Publish { subject } => at >= begun && *subject == *own,
            // Made by the first call, for all of them.
            Denial::Subscribe { subject, .. } => {
                inboxes.is_some_and(|inboxes| subject.starts_with(inboxes))
            }
        });
        tokio::select! {
            biased;
            received = self.send(limit) => received,
            denial = denied => Err(CallError::Denied(denial)),
        }
    }

    async fn send(&self, limit: Duration) -> Result<Received, Failure> {
        let transport = &self.core.transport;
        let headers = self.request_headers(limit)?;
        #[cfg(feature = "tower")]
        if !self.core.layers.is_empty() {
            // Boxed, so that a call without layers has no room for them in it.
            let (message, _) = Box::pin(self.through_layers(headers, limit, Wants::Answer)).await?;
            return self.read(message).await;
        }
        let (mut pending, inbox) = transport.one().await?;
        transport
            .send(self.subject(), inbox, headers, self.body.clone())
            .await?;
        let message = pending.reply().await.ok_or_else(closed)?;
        if nobody_listens(&message) {
            let subject = self.subject();
            return Err(CallError::NoResponders { subject });
        }
        self.read(message).await
    }

    /// What a request says besides its body; nothing at all in the usual case, where the contract says it. An error when
    /// both are more than a server takes, which would end the connection.
    pub(super) fn request_headers(&self, limit: Duration) -> Result<Option<HeaderMap>, Failure> {
        let spec = self.spec;
        let codec = self.core.codec(spec);
        let headers = call_headers(spec, codec, self.headers.as_deref(), limit);
        let transport = &self.core.transport;
        transport.check(|| self.subject(), headers.as_ref(), &self.body)?;
        Ok(headers)
    }

    /// Takes a reply for what it is.
    pub(super) async fn read(&self, message: Message) -> Result<Received, Failure> {
        let own = self.core.codec(self.spec);
        let codec = match content_type(&message) {
            Some(said) => own
                .or_named(said)
                .or_else(|| self.spec.codec.or_named(said))
                .ok_or_else(|| CodecError::unknown(said, own)),
            None => Ok(self.spec.codec),
        };
        let headers = message.headers.unwrap_or_default();
        if let Some(error) = error_reply::read(&headers, &message.payload) {
            return Err(CallError::Service(error));
        }
        // An error is JSON, whatever else is spoken: only an answer needs its codec.
        let codec = codec.map_err(CallError::Decode)?;
        let content = match header::said(&headers, header::OBJECT) {
            None if self.streams => {
                Content::Stream(ByteStream::new(std::io::Cursor::new(message.payload)))
            }
            None => Content::Bytes(message.payload),
            // Boxed, so that a call whose answer fits its reply has no room for this in it.
            Some(reference) => Box::pin(fetch(&self.core, reference, &headers, self.streams))
                .await
                .map_err(CallError::Object)?,
        };
        Ok(Received {
            codec,
            headers,
            content,
            attempts: 1,
        })
    }
}

/// What the server answers for a subject without subscribers.
pub(super) fn nobody_listens(message: &Message) -> bool {
    message.status == Some(StatusCode::NO_RESPONDERS)
}

pub(super) fn closed() -> Failure {
    connection("it was closed while the call waited")
}

/// The caller's headers, and those of every request; none at all in the usual case, where the contract says it.
pub(super) fn call_headers(
    spec: &MethodSpec,
    codec: Codec,
    more: Option<&HeaderMap>,
    limit: Duration,
) -> Option<HeaderMap> {
    let mut headers = more.cloned();
    if codec != Codec::Json || spec.codec != Codec::Json {
        let headers = headers.get_or_insert_default();
        headers.insert(header::CONTENT_TYPE, codec.content_type());
    }
    // The service has its own clock run from the receipt for as long as the contract says: only less than that is news,
    // and a hundredth less is not worth a header.
    if limit.saturating_add(spec.timeout / 100) < spec.timeout {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let headers = headers.get_or_insert_default();
        headers.insert(
            HeaderName::from_static(header::TIMEOUT),
            HeaderValue::from(millis),
        );
    }
    telemetry::inject(&mut headers);
    headers
}

/// Fetches an answer that did not fit a message, or opens it.
async fn fetch(
    core: &ClientCore,
    reference: &str,
    headers: &HeaderMap,
    streams: bool,
) -> Result<Content, StoreError> {
    let reader = follow(core, reference, headers).await?;
    Ok(match streams {
        true => Content::Stream(ByteStream::new(reader)),
        false => Content::Bytes(reader.into_bytes().await?),
    })
}

fn content_type(message: &Message) -> Option<&str> {
    let headers = message.headers.as_ref()?;
    headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.as_str())
}

/// Opens the object of an answer that did not fit a message.
async fn follow(
    core: &ClientCore,
    reference: &str,
    headers: &HeaderMap,
) -> Result<ObjectReader, StoreError> {
    let jetstream = match (&core.jetstream, core.transport.client()) {
        (Some(jetstream), _) => jetstream.clone(),
        // The caller shall notice nothing of the detour, so it need not have thought of JetStream.
        (None, Some(client)) => async_nats::jetstream::new(client.clone()),
        (None, None) => return Err(StoreError::NoJetStream),
    };
    let (bucket, name) = reference.split_once('/').unwrap_or((reference, ""));
    let digest = headers
        .get(header::OBJECT_DIGEST)
        .map_or("", |digest| digest.as_str());
    store::object::open(&jetstream, bucket, name, digest).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl FnOnce(Exchange) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_call_has_no_room_in_it_for_what_is_rare() {
        let size = size(Exchange::run_unwatched);
        assert!(size < 3 * 1024, "{size}");
    }
}
