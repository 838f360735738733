//! `#[kv_cache]`: looks for an answer in the bucket before the handler is called, and keeps what the handler answers.
//!
//! What it promises: a cache never fails a call, whatever becomes of JetStream; concurrent calls of one key make one handler call;
//! and what was begun before a key was evicted or written is not stored after it. For the last, a look remembers the key's
//! revision, the write is conditional on it, and a flight is of a key at its revision.
//!
//! `flight` has who calls and who waits, `entry` what stands in the bucket, `claim` what is said to other instances, `serve` the
//! generic part.

mod claim;
mod entry;
mod flight;
mod serve;
mod settle;
mod stats;

pub(crate) use stats::{CacheReading, CacheStats};

use super::stats::Stats;
use crate::store::persist::{Conditional, Permit, Write, WriteAction, Writer};
use crate::store::stream::Stream;
use crate::telemetry::Trace;
use crate::wire::codec::{Codec, CodecError};
use crate::wire::error::Error;
use crate::wire::spec::{CacheSpec, MethodSpec, SingleFlight, StoreSpec, WriteMode};
use async_nats::jetstream;
use bytes::Bytes;
use claim::Claim;
use entry::{Held, Seen, Shared, Value, age};
use flight::{Flight, Flights, Joined};
use stats::count;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// For how long nobody looks after a look has failed: a bucket that does not answer must not cost every call its time, the
/// connection an entry in its table of requests for each, and the log a line.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an answer may take into the bucket. Nobody relies on it.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// A claim that is not renewed for so long is nobody's, at most.
const MAX_LEASE: Duration = Duration::from_secs(2);

/// Reads an answer, to see that it is one of the method, and writes it in the codec that is wanted.
pub(crate) type Revive = fn(Codec, &Bytes, Codec) -> Result<Bytes, CodecError>;

/// The cache of one method.
#[derive(Debug)]
pub(crate) struct Cache {
    method: &'static MethodSpec,
    store: &'static StoreSpec,
    spec: CacheSpec,
    /// Its place among the method's stores.
    index: usize,
    /// How long the bucket keeps an entry.
    kept: Duration,
    lease: Duration,
    stream: Stream,
    writer: Writer,
    flights: Flights,
    stats: Arc<Stats>,
    paused_until: Mutex<Option<Instant>>,
}

/// What becomes of a call before its handler.
pub(crate) enum Turn {
    /// There is no cache: no JetStream.
    Plain,
    Answered(Answered),
    /// The handler is to be called.
    Lead(Box<Lead>),
}

/// An answer without a call.
pub(crate) enum Answered {
    Found {
        body: Bytes,
        codec: Codec,
        from: Source,
        /// Where it is known.
        revision: Option<u64>,
    },
    Failed(Error),
}

/// Where an answer comes from that is not the handler's for this very call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Hit,
    Stale,
    Shared,
}

/// A call that calls the handler, for itself and for those that wait.
#[derive(Debug)]
pub(crate) struct Lead {
    cache: Arc<Cache>,
    key: Arc<str>,
    /// What the write is conditional on; `None` when it is not known, and nothing is written.
    revision: Option<u64>,
    /// When that was so, at the latest.
    looked: Instant,
    /// What to fall back on.
    stale: Option<Stale>,
    flight: Flight,
    claim: Option<Claim>,
}

/// An answer that is no longer fresh, in the codec of this call.
#[derive(Debug, Clone)]
struct Stale {
    body: Bytes,
    codec: Codec,
    revision: u64,
}

enum Judged {
    Answer(Answered),
    Missing(Option<Stale>),
}

impl Cache {
    /// The cache of a method; `None` when it has none.
    pub(crate) fn of(
        method: &'static MethodSpec,
        js: &jetstream::Context,
        writer: impl FnOnce(&StoreSpec) -> Option<Writer>,
        stats: &Arc<Stats>,
    ) -> Option<Arc<Self>> {
        let mut stores = method.stores.iter().enumerate();
        let (index, store, spec) =
            stores.find_map(|(index, store)| Some((index, store, store.cache?)))?;
        let kept = store.bucket.ttl.unwrap_or(Duration::MAX);
        Some(Arc::new(Self {
            method,
            store,
            spec,
            index,
            kept,
            // A claim that has expired in the bucket cannot be renewed.
            lease: (method.timeout / 4).min(MAX_LEASE).min(kept),
            stream: Stream::new(js.clone(), store.kind, store.bucket.name),
            writer: writer(store)?,
            flights: Flights::default(),
            stats: Arc::clone(stats),
            paused_until: Mutex::default(),
        }))
    }

    /// The place of the cache among the method's stores.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    fn stats(&self) -> &CacheStats {
        &self.stats.cache
    }

    fn before_reply(&self) -> bool {
        self.store.write == WriteMode::BeforeReply
    }

    /// Looks, waits for another's flight, or makes this call the one that calls the handler.
    pub(crate) async fn look(
        self: &Arc<Self>,
        key: Arc<str>,
        wanted: Codec,
        deadline: Instant,
        revive: Revive,
    ) -> Turn {
        let mut looked = Instant::now();
        let mut seen = self.read(&key).await;
        let mut stale = match self.judge(&key, seen.as_ref(), wanted, revive) {
            Judged::Answer(answered) => return self.hit(answered),
            Judged::Missing(stale) => stale,
        };
        let revision = seen.as_ref().map(|seen| seen.revision);
        let (mut flight, stranded) = match self.flights.lead_or_wait(&key, revision).await {
            Joined::Landed(shared) => {
                count(&self.stats().waited);
                return Turn::Answered(given(shared, wanted, revive));
            }
            Joined::Lead { flight, stranded } => (flight, stranded),
        };
        if stranded {
            // What was seen before another's flight came to nothing is old; others may have stored an answer meanwhile.
            looked = Instant::now();
            seen = self.read(&key).await;
            if let Some(seen) = &seen {
                flight.also(seen.revision);
            }
            stale = match self.judge(&key, seen.as_ref(), wanted, revive) {
                Judged::Answer(answered) => {
                    flight.land(shared_of(&answered));
                    return self.hit(answered);
                }
                Judged::Missing(stale) => stale,
            };
        }
        let mut lead = Lead {
            cache: Arc::clone(self),
            key,
            revision: seen.as_ref().map(|seen| seen.revision),
            looked,
            stale,
            flight,
            claim: None,
        };
        if self.spec.flight == SingleFlight::Cluster
            && let Some(seen) = seen
        {
            let reading = claim::Reading { wanted, revive };
            if let Some(answered) = lead.claim(seen, reading, deadline).await {
                lead.share(&answered);
                return self.hit(answered);
            }
        }
        count(&self.stats().misses);
        Turn::Lead(Box::new(lead))
    }

    fn hit(&self, answered: Answered) -> Turn {
        count(&self.stats().hits);
        Turn::Answered(answered)
    }

    /// The key's last message; `None` when that cannot be found out in time.
    async fn read(&self, key: &str) -> Option<Seen> {
        let paused = || {
            self.paused_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if paused().is_some_and(|until| Instant::now() < until) {
            count(&self.stats().bypassed);
            return None;
        }
        let subject = format!("$KV.{}.{key}", self.store.bucket.name);
        let last = self.stream.last(&subject);
        let why = match tokio::time::timeout(self.spec.lookup_timeout, last).await {
            Ok(Ok(stored)) => return Some(Seen::read(stored, self.method.codec)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.spec.lookup_timeout),
        };
        *paused() = Some(Instant::now() + PAUSE);
        count(&self.stats().bypassed);
        tracing::warn!(
            subject = self.method.subject,
            bucket = self.store.bucket.name,
            why,
            "the cache cannot be read, the handler is called"
        );
        None
    }

    fn judge(&self, key: &str, seen: Option<&Seen>, wanted: Codec, revive: Revive) -> Judged {
        let Some(seen) = seen else {
            return Judged::Missing(None);
        };
        let value = match &seen.held {
            Held::Nothing => return Judged::Missing(None),
            Held::Failure(error, created) => {
                let mut kept = self.spec.errors.iter();
                let kept = kept.find(|(code, _)| *code == error.code());
                return match kept {
                    Some((_, kept)) if self.within(*created, *kept) => {
                        Judged::Answer(Answered::Failed(error.clone()))
                    }
                    _ => Judged::Missing(None),
                };
            }
            Held::Claim { carried, .. } => {
                let Some(value) = carried else {
                    return Judged::Missing(None);
                };
                return Judged::Missing(self.stale(key, seen, value, wanted, revive));
            }
            Held::Value(value) => value,
        };
        let nothing = entry::is_nothing(&value.body, value.codec);
        let fresh = if nothing {
            self.spec.none
        } else {
            Some(self.spec.fresh)
        };
        if !fresh.is_some_and(|fresh| self.within(value.created, fresh)) {
            return Judged::Missing(self.stale(key, seen, value, wanted, revive));
        }
        match self.revived(key, seen, value, wanted, revive) {
            Some(body) => Judged::Answer(Answered::Found {
                body,
                codec: wanted,
                from: Source::Hit,
                revision: Some(seen.revision),
            }),
            None => Judged::Missing(None),
        }
    }

    /// Whether an entry of that time is to be used. Where the bucket itself keeps it no longer, its clock has decided.
    fn within(&self, created: SystemTime, lifetime: Duration) -> bool {
        lifetime >= self.kept || age(created) < lifetime
    }

    fn stale(
        &self,
        key: &str,
        seen: &Seen,
        value: &Value,
        wanted: Codec,
        revive: Revive,
    ) -> Option<Stale> {
        let lifetime = self.spec.fresh + self.spec.stale?;
        // A claim is younger than what it carries, so only the age of that counts.
        let usable = age(value.created) < lifetime && !entry::is_nothing(&value.body, value.codec);
        let body = usable.then(|| self.revived(key, seen, value, wanted, revive));
        Some(Stale {
            body: body.flatten()?,
            codec: wanted,
            revision: seen.revision,
        })
    }

    fn revived(
        &self,
        key: &str,
        seen: &Seen,
        value: &Value,
        wanted: Codec,
        revive: Revive,
    ) -> Option<Bytes> {
        match revive(value.codec, &value.body, wanted) {
            Ok(body) => Some(body),
            Err(error) => {
                count(&self.stats().undecodable);
                tracing::warn!(
                    subject = self.method.subject,
                    bucket = self.store.bucket.name,
                    key,
                    revision = seen.revision,
                    %error,
                    "an entry of the cache is no answer of this method, and will be overwritten"
                );
                None
            }
        }
    }

    fn write(&self, key: &str, conditional: Conditional, codec: Codec) -> Write {
        Write {
            key: key.to_owned(),
            action: WriteAction::PutIf(Box::new(conditional)),
            content_type: codec.content_type(),
            trace: Trace::default(),
        }
    }

    /// Room in the writer, if there is any: nobody waits for it.
    fn room(&self) -> Option<Permit> {
        self.writer.try_reserve().ok()
    }

    /// Until when a write may be tried that is conditional on what was so at `looked`. The mark of an eviction expires like any
    /// entry, and a write that comes after that would find nothing in its way.
    fn write_until(&self, looked: Instant) -> Option<tokio::time::Instant> {
        let now = Instant::now();
        let last = looked.checked_add(self.kept);
        let until = last.map_or(now + WRITE_TIME, |last| last.min(now + WRITE_TIME));
        (until > now).then(|| until.into())
    }
}

impl Lead {
    fn share(&self, answered: &Answered) {
        self.flight.land(shared_of(answered));
    }
}

fn shared_of(answered: &Answered) -> Shared {
    match answered {
        Answered::Found { body, codec, .. } => Shared::Value(body.clone(), *codec),
        Answered::Failed(error) => Shared::Failed(error.clone()),
    }
}

/// What another call has got, for this one.
fn given(shared: Shared, wanted: Codec, revive: Revive) -> Answered {
    match shared {
        Shared::Failed(error) => Answered::Failed(error),
        Shared::Value(body, codec) => match revive(codec, &body, wanted) {
            Ok(body) => Answered::Found {
                body,
                codec: wanted,
                from: Source::Shared,
                revision: None,
            },
            Err(error) => Answered::Failed(Error::internal(error.to_string()).refused()),
        },
    }
}
