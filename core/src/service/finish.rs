//! What happens to an answer: it goes to the caller and into the stores, in the order that the method promises.
//!
//! Not generic, so that it is compiled once and not once a method.

use super::cache::Cache;
use super::reply::{Forged, ReplyRule};
use super::stats::Stats;
use super::stores::BoundStore;
use super::streaming::Streams;
use crate::store::StoreError;
use crate::store::object::{digest, upload_stream};
use crate::store::persist::{Permit, Write, WriteAction, Writer};
use crate::telemetry::{self, EndpointMetrics, Trace};
use crate::wire::codec::Codec;
use crate::wire::context::Origin;
use crate::wire::error::Error;
use crate::wire::error_reply;
use crate::wire::header;
use crate::wire::outlet::Outlet;
use crate::wire::spec::{MethodSpec, StoreAction, StoreKind, StoreSpec, WriteMode};
use crate::wire::stream::ByteStream;
use async_nats::{HeaderMap, HeaderValue, Subject, jetstream};
use bytes::Bytes;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{Instrument as _, Span};

/// How a request ended: `None` when it went well.
pub(crate) type Verdict = Option<Box<Error>>;

/// More than the headers of a reply ever take: a bucket's name, an escaped key, a digest, a revision.
const MAX_REPLY_HEADERS: usize = 4096;

/// What an endpoint needs besides its handler.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) spec: &'static MethodSpec,
    pub(crate) origin: Origin,
    pub(crate) client: Outlet,
    /// Every instance gets each request: there is no queue group.
    pub(crate) everyone: bool,
    /// There are layers around it.
    #[cfg(feature = "tower")]
    pub(crate) layered: bool,
    pub(crate) reply_rule: Arc<ReplyRule>,
    pub(crate) stats: Arc<Stats>,
    /// Those of the whole server.
    pub(crate) streams: Arc<Streams>,
    pub(crate) metrics: EndpointMetrics,
    /// In the order of `spec.stores`; empty when there is no JetStream.
    pub(crate) stores: Vec<BoundStore>,
    /// `None` when nothing is stored.
    pub(crate) jetstream: Option<jetstream::Context>,
    /// What is looked into before a call.
    pub(crate) cache: Option<Arc<Cache>>,
    /// How long a request waits for room in a writer.
    pub(crate) patience: Duration,
}

/// A successful call's answer, before it is replied and stored.
pub(crate) struct Answer {
    pub(super) content: Content,
    codec: Codec,
    /// What the handler has set.
    pub(super) headers: Option<Box<HeaderMap>>,
    /// `None` when the method has no stores.
    kept: Option<Box<ToKeep>>,
}

/// What a handler's answer is made of.
pub(crate) enum Content {
    /// As it is sent; and as it is kept, where that is in the service's own codec and the caller wants another.
    Bytes(Bytes, Option<(Bytes, Codec)>),
    /// Still to be produced, while it is stored.
    Stream(ByteStream),
}

impl Answer {
    pub(crate) fn new(
        content: Content,
        codec: Codec,
        headers: Option<Box<HeaderMap>>,
        keys: Option<Vec<Option<String>>>,
        room: Vec<Permit>,
    ) -> Self {
        let kept = keys.map(|keys| Box::new(ToKeep { keys, room }));
        Self {
            content,
            codec,
            headers,
            kept,
        }
    }

    /// What it is as it is kept, unless it is still to be produced.
    pub(crate) fn bytes(&self) -> Option<(&Bytes, Codec)> {
        match &self.content {
            Content::Bytes(_, Some((body, codec))) => Some((body, *codec)),
            Content::Bytes(body, None) => Some((body, self.codec)),
            Content::Stream(_) => None,
        }
    }

    /// Whether the store of this number keeps it.
    pub(crate) fn keeps(&self, index: usize) -> bool {
        let kept = self.kept.as_ref();
        kept.is_some_and(|kept| matches!(kept.keys.get(index), Some(Some(_))))
    }

    pub(crate) fn add_header(&mut self, name: &'static str, value: HeaderValue) {
        self.headers.get_or_insert_default().insert(name, value);
    }
}

/// A handler's own error, and the headers that it has set.
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) headers: Option<Box<HeaderMap>>,
}

/// What became of a request: the handler's answer or its error; or, around both, why it was refused.
pub(crate) type Outcome = Result<Result<Answer, Failed>, Error>;

/// What an answer's stores need.
#[derive(Default)]
struct ToKeep {
    /// In the order of `spec.stores`; `None` where `when` said no.
    keys: Vec<Option<String>>,
    /// For each of those that writes.
    room: Vec<Permit>,
}

/// An object that holds an answer.
struct Reference {
    /// `<bucket>/<name>`
    object: String,
    digest: String,
}

/// A write that one of the method's stores asks for.
struct Planned<'s> {
    spec: &'static StoreSpec,
    writer: &'s Writer,
    permit: Permit,
    write: Write,
}

/// Whether this store keeps answers as objects.
pub(crate) fn is_object_put(store: &StoreSpec) -> bool {
    store.kind == StoreKind::Object && store.action == StoreAction::Put
}

impl Reference {
    fn new(store: &StoreSpec, name: &str, digest: String) -> Self {
        Self {
            object: format!("{}/{name}", store.bucket.name),
            digest,
        }
    }

    fn write(&self, headers: &mut HeaderMap) {
        insert(headers, header::OBJECT, &self.object);
        insert(headers, header::OBJECT_DIGEST, &self.digest);
    }
}

/// What there is to send, and to write after it.
struct Kept<'s> {
    body: Bytes,
    codec: Codec,
    headers: Option<HeaderMap>,
    later: Vec<Planned<'s>>,
}

impl Context {
    /// Replies and stores, in the order that each store asks for.
    pub(crate) async fn finish(
        &self,
        reply: Option<Subject>,
        deadline: Instant,
        outcome: Outcome,
    ) -> Verdict {
        #[cfg(feature = "tower")]
        let outcome = match self.layered {
            true => match super::layered::hand_over(outcome) {
                Some(outcome) => outcome,
                // The layers have it now; what they make of it comes here again.
                None => return None,
            },
            false => outcome,
        };
        match outcome {
            // The usual case, and the one that has to be cheap: a plain reply, and nothing to keep.
            Ok(Ok(Answer {
                content: Content::Bytes(body, None),
                codec: Codec::Json,
                headers: None,
                kept: None,
            })) if self.named().is_none() && body.len() <= self.client.max_payload() => {
                if let Some(reply) = reply
                    && let Err(error) = self.client.publish(reply, body).await
                {
                    self.not_sent(&error);
                }
                None
            }
            // Boxed, so that the usual case is not copied around with room for all of this in it.
            outcome => Box::pin(self.finish_at_length(reply, deadline, outcome)).await,
        }
    }

    async fn finish_at_length(
        &self,
        reply: Option<Subject>,
        deadline: Instant,
        outcome: Outcome,
    ) -> Verdict {
        let kept = match outcome {
            Ok(Ok(answer)) => self.keep(reply.is_some(), deadline, answer).await,
            Ok(Err(Failed { error, headers })) => {
                let headers = headers.map(|headers| *headers).unwrap_or_default();
                return self.fail(reply, headers, error).await;
            }
            Err(refusal) => Err(refusal),
        };
        let kept = match kept {
            Ok(kept) => kept,
            Err(refusal) => return self.refuse(reply, refusal).await,
        };
        if let Some(reply) = reply {
            self.reply(reply, kept.headers, kept.codec, kept.body).await;
        }
        for Planned {
            writer,
            permit,
            write,
            ..
        } in kept.later
        {
            writer.submit(write, permit);
        }
        None
    }

    /// Does the writes that come before the reply, and plans those that come after it.
    async fn keep(
        &self,
        replies: bool,
        deadline: Instant,
        answer: Answer,
    ) -> Result<Kept<'_>, Error> {
        let Answer {
            content,
            codec,
            headers,
            kept,
        } = answer;
        let ToKeep { keys, room } = kept.map(|kept| *kept).unwrap_or_default();
        let (body, kept_codec, kept_body, reference) = match content {
            Content::Bytes(body, None) => (body.clone(), codec, body, None),
            Content::Bytes(body, Some((kept, codec))) => (body, codec, kept, None),
            Content::Stream(stream) => {
                let stored = self.store_stream(stream, &keys).await?;
                (Bytes::new(), codec, Bytes::new(), Some(stored))
            }
        };
        let stored = reference.is_some();
        let stores = self.stores.iter().zip(keys);
        let stores =
            stores.filter_map(|(store, key)| Some((store.spec, store.writer.as_ref()?, key)));
        let planned = stores
            .zip(room)
            .filter_map(|((spec, writer, key), permit)| {
                let write = Write {
                    key: key?,
                    action: match spec.action {
                        // What was stored as it was produced needs no write any more.
                        StoreAction::Put if stored => return None,
                        StoreAction::Put => WriteAction::Put(kept_body.clone()),
                        StoreAction::Evict => WriteAction::Delete,
                    },
                    content_type: kept_codec.content_type(),
                    trace: Trace::default(),
                };
                Some(Planned {
                    spec,
                    writer,
                    permit,
                    write,
                })
            });
        let planned: Vec<_> = planned.collect();
        let headers = headers.map(|headers| *headers);
        let too_large = replies && !self.fits(&body, codec, headers.as_ref(), !planned.is_empty());
        // The first one that can; the others write as they would otherwise.
        let carrier = planned
            .iter()
            .position(|planned| is_object_put(planned.spec));
        let carrier = carrier.filter(|_| too_large);
        if too_large && carrier.is_none() {
            // An error, or the caller would wait in vain; and nothing is written, as for any failed call.
            let way_out = if self.spec.stores.iter().any(is_object_put) {
                "it is not kept as an object this time: the server has no JetStream, or `write` or `when` says no"
            } else {
                "an `#[object_store(..)]` method may answer with more"
            };
            return Err(Error::resource_exhausted(format!(
                "{}: the answer has {} bytes, and a message carries at most {}; {way_out}",
                self.spec.subject,
                body.len(),
                self.client.max_payload(),
            )));
        }
        let mut kept = Kept {
            body,
            codec,
            headers,
            later: Vec::new(),
        };
        if let Some(reference) = reference {
            reference.write(kept.headers.get_or_insert_default());
        }
        for (i, planned) in planned.into_iter().enumerate() {
            let by_reference = carrier == Some(i);
            if planned.spec.write != WriteMode::BeforeReply && !by_reference {
                kept.later.push(planned);
                continue;
            }
            let Planned {
                spec,
                writer,
                permit,
                write,
            } = planned;
            let puts = spec.action == StoreAction::Put;
            let key = puts.then(|| write.key.clone());
            let reference =
                by_reference.then(|| Reference::new(spec, &write.key, digest(&kept_body)));
            let revision = writer
                .submit_and_wait(write, permit, write_deadline(deadline))
                .await
                .map_err(|error| {
                    Error::unavailable(format!(
                        "{}: the answer could not be stored: {error}",
                        self.spec.subject
                    ))
                })?;
            let headers = kept.headers.get_or_insert_default();
            // Of several the first one's: the one that stands first is the answer's own.
            if let Some(key) = key
                && headers.get(header::REVISION).is_none()
            {
                match spec.kind {
                    StoreKind::Kv => {
                        headers.insert(header::REVISION, HeaderValue::from(revision));
                        insert(headers, header::KEY, &key);
                    }
                    StoreKind::Object if headers.get(header::KEY).is_none() => {
                        insert(headers, header::KEY, &key);
                    }
                    StoreKind::Object => {}
                }
            }
            if let Some(reference) = reference {
                reference.write(headers);
                if kept.codec != kept_codec {
                    kept.codec = kept_codec;
                    headers.insert(header::CONTENT_TYPE, kept_codec.content_type());
                }
                kept.body = Bytes::new();
            }
        }
        Ok(kept)
    }

    /// Stores an answer as it is produced.
    async fn store_stream(
        &self,
        stream: ByteStream,
        keys: &[Option<String>],
    ) -> Result<Reference, Error> {
        let mut stores = self.stores.iter().zip(keys);
        let object = stores.find_map(|(store, key)| {
            let key = key.as_ref()?;
            is_object_put(store.spec).then_some((store, key))
        });
        // `Server::start` has seen to both; a message that says so is still better than a panic.
        let (Some((store, name)), Some(jetstream)) = (object, &self.jetstream) else {
            let text = format!(
                "{}: there is no object store to put a stream into",
                self.spec.subject
            );
            return Err(Error::internal(text));
        };
        let bucket = store.spec.bucket.name;
        let span = telemetry::write(bucket, name);
        let trace = Trace::of(&span);
        let stored = upload_stream(jetstream, bucket, name, &trace, stream);
        let stored = stored.instrument(span.clone()).await;
        match &stored {
            Ok(_) => telemetry::written(&span, None),
            Err(_) => telemetry::unwritten(&span),
        }
        match stored {
            Ok(info) => {
                if let Some(writer) = &store.writer {
                    writer.stored_beside(name);
                }
                let digest = info.digest.unwrap_or_default();
                Ok(Reference::new(store.spec, name, digest))
            }
            Err(StoreError::Source(error)) => {
                tracing::error!(subject = self.spec.subject, %error, "an answer could not be produced to its end");
                Err(Error::internal(format!(
                    "{}: the answer could not be produced to its end",
                    self.spec.subject
                )))
            }
            Err(error) => Err(Error::unavailable(format!(
                "{}: the answer could not be stored: {error}",
                self.spec.subject
            ))),
        }
    }

    /// The instance's id, where all of them answer and a caller wants to tell them apart.
    fn named(&self) -> Option<&str> {
        self.everyone.then_some(&*self.origin.instance)
    }

    /// Whether a message can carry `body`; headers count as well.
    fn fits(&self, body: &Bytes, codec: Codec, headers: Option<&HeaderMap>, stored: bool) -> bool {
        let ours = if stored || self.named().is_some() || codec != Codec::Json {
            MAX_REPLY_HEADERS
        } else {
            0
        };
        body.len() + ours + headers.map_or(0, header::size) <= self.client.max_payload()
    }

    pub(crate) async fn reply(
        &self,
        reply: Subject,
        mut headers: Option<HeaderMap>,
        codec: Codec,
        body: Bytes,
    ) {
        if let Some(instance) = self.named() {
            insert(headers.get_or_insert_default(), header::INSTANCE, instance);
        }
        // JSON says nothing of itself: a header would cost every reply of the usual kind an allocation or three.
        let headers = match (headers, codec) {
            (None, Codec::Json) => None,
            (headers, codec) => {
                let mut headers = headers.unwrap_or_default();
                headers.insert(header::CONTENT_TYPE, codec.content_type());
                Some(headers)
            }
        };
        let sent = match headers {
            None => self.client.publish(reply, body).await,
            Some(headers) => self.client.publish_with_headers(reply, headers, body).await,
        };
        if let Err(error) = sent {
            self.not_sent(&error);
        }
    }

    fn not_sent(&self, error: &async_nats::PublishError) {
        tracing::warn!(subject = self.spec.subject, %error, "a reply could not be sent");
    }

    /// Replies with an error of the framework's own; ends as the verdict.
    pub(crate) async fn refuse(&self, reply: Option<Subject>, error: Error) -> Verdict {
        self.fail(reply, HeaderMap::new(), error.refused()).await
    }

    /// Replies with an error, and with these headers besides; ends as the verdict.
    pub(crate) async fn fail(
        &self,
        reply: Option<Subject>,
        mut headers: HeaderMap,
        error: Error,
    ) -> Verdict {
        if let Some(reply) = reply {
            if header::size(&headers) > self.client.max_payload() / 2 {
                // The error is what its caller needs.
                headers = HeaderMap::new();
            }
            error_reply::write(&error, &mut headers);
            if let Some(instance) = self.named() {
                insert(&mut headers, header::INSTANCE, instance);
            }
            let room = self.client.max_payload() - header::size(&headers);
            let body = error_reply::body(&error, room);
            if let Err(failed) = self.client.publish_with_headers(reply, headers, body).await {
                tracing::warn!(subject = self.spec.subject, error = %failed, "an error reply could not be sent");
            }
        }
        Some(Box::new(error))
    }

    /// Ends a request whose handler panicked.
    pub(crate) async fn panicked(&self, reply: Option<Subject>, panic: Panic, took: Duration) {
        // The text is for the operator: it may hold what no caller should see.
        panic.log(self.spec.subject);
        let error = Error::internal(format!(
            "{}: the handler failed unexpectedly",
            self.spec.subject
        ));
        let verdict = self.refuse(reply, error).await;
        self.count(&verdict, took, &Span::none());
    }

    /// Refuses a request because too many are there.
    pub(crate) async fn shed(&self, reply: Option<Subject>, received: Instant) {
        let error = Error::resource_exhausted(format!(
            "{}: too many calls at once; try again later",
            self.spec.subject
        ));
        if let Some(error) = self.refuse(reply, error).await {
            let took = received.elapsed();
            self.stats.shed(took, &error);
            self.metrics.shed();
            self.metrics.ended(Some(error.code()), took);
        }
    }

    /// Drops a request whose reply subject is not to be answered.
    pub(crate) fn forged(&self, reply: &str, why: Forged) {
        let count = self.stats.forged();
        self.metrics.forged();
        // An attacker must not be able to fill the log: the 1st, 2nd, 4th, 8th .. is written.
        if count.is_power_of_two() {
            let reply = header::sanitize(reply, 128);
            tracing::warn!(subject = self.spec.subject, reply, %why, count, "dropped a request because of its reply subject");
        }
    }

    /// The span of a request that is about to be served.
    pub(crate) fn span(&self, message: &async_nats::Message) -> Span {
        let (service, headers) = (self.origin.service, message.headers.as_ref());
        telemetry::request(service, self.spec, &message.subject, headers)
    }

    pub(crate) fn count(&self, verdict: &Verdict, took: Duration, span: &Span) {
        let code = verdict.as_ref().map(|error| error.code());
        match verdict {
            None => self.stats.succeeded(took),
            Some(error) => self.stats.failed(took, error),
        }
        self.metrics.ended(code, took);
        if self.cache.is_some() {
            self.metrics.cached(|| self.stats.cache.outcomes());
        }
        telemetry::ended(span, code);
    }
}

/// What a handler's panic said.
pub(crate) struct Panic(String);

impl Panic {
    pub(crate) fn log(&self, subject: &str) {
        tracing::error!(subject, panic = self.0, "a handler panicked");
    }
}

impl From<Box<dyn Any + Send>> for Panic {
    fn from(payload: Box<dyn Any + Send>) -> Self {
        let text = match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => match payload.downcast::<&'static str>() {
                Ok(text) => (*text).to_owned(),
                Err(_) => "a panic without a text".to_owned(),
            },
        };
        Self(text)
    }
}

/// Until when a write may take that comes before its reply, which has time until `deadline`. A tenth of the time that is left
/// belongs to the reply: the caller shall hear that it was not stored, and not just wait in vain.
pub(crate) fn write_deadline(deadline: Instant) -> tokio::time::Instant {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    (now + left.mul_f64(0.9)).into()
}

/// Inserts `value`, which must be free of line breaks; the infallible conversion panics on one.
fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = value.parse::<HeaderValue>() {
        headers.insert(name, value);
    }
}
