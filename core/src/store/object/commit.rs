//! Publishing metadata, which is what makes, changes and deletes an object; and removing the chunks that nothing refers to any
//! more.
//!
//! Metadata is only ever published on top of the version that was seen. So of two writers at once each replaces what was there
//! before it, and purges exactly that; and whoever expected something else hears of it.

use super::super::error::{Refusal, StoreError, other};
use super::super::stream::{Stored, Stream, back_off};
use super::info::{Meta, ObjectInfo, chunk_subject, meta_subject, parse};
use super::window::passes;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_ROLLUP};
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use std::time::{Duration, Instant, SystemTime};

/// How often the metadata is published anew when others publish theirs in between.
pub(super) const ATTEMPTS: u32 = 30;
/// How long a bucket without a leader is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a replica may lag behind, and how often it is asked in that time.
const LAG: Duration = Duration::from_millis(500);
const DOUBTS: u32 = 5;

/// What is there, before it is replaced.
pub(super) struct Current {
    pub(super) info: ObjectInfo,
    /// As it stands, with what this crate does not know.
    pub(super) meta: Meta,
}

/// What new metadata did.
pub(super) struct Committed {
    pub(super) info: ObjectInfo,
    /// The versions whose metadata is gone.
    pub(super) replaced: Vec<String>,
}

pub(super) enum Failed {
    /// The metadata is not there.
    Refused(StoreError),
    /// It may be there, or come yet.
    Unknown,
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(error) => error,
            Failed::Unknown => StoreError::Timeout,
        }
    }
}

/// On top of what a write is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Anything,
    /// None, or one that was deleted.
    Absent,
    /// This revision of the metadata.
    Revision(u64),
}

impl Expected {
    /// Whether this is what is there.
    pub(super) fn check(self, name: &str, there: Option<&Current>) -> Result<(), StoreError> {
        let live = there.filter(|there| !there.info.deleted);
        let current = live.map(|live| live.info.revision);
        let conflict = |expected| {
            Err(StoreError::Conflict {
                key: name.to_owned(),
                expected,
                current,
            })
        };
        match self {
            Expected::Absent if live.is_some() => conflict(0),
            Expected::Revision(revision) if current != Some(revision) => conflict(revision),
            _ => Ok(()),
        }
    }
}

/// What is there of this name, once `accept` takes it; its refusal, when a replica that lags cannot be the reason.
pub(super) async fn current<T>(
    stream: &Stream,
    name: &str,
    mut accept: impl FnMut(Option<Current>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let subject = meta_subject(stream.bucket(), name);
    let mut doubts = 0;
    loop {
        let last = latest(stream, &subject, doubts).await?;
        match accept(last.as_ref().and_then(read)) {
            Err(_) if doubt(stream, &mut doubts).await => {}
            done => return done,
        }
    }
}

/// What is there of this name, unless it is deleted.
pub(super) async fn live(stream: &Stream, name: &str) -> Result<Current, StoreError> {
    let accept = |there: Option<Current>| there.filter(|there| !there.info.deleted);
    current(stream, name, |there| {
        accept(there).ok_or_else(|| not_found(name))
    })
    .await
}

pub(super) fn not_found(name: &str) -> StoreError {
    StoreError::ObjectNotFound {
        name: name.to_owned(),
    }
}

/// Whether what was read may be older than what was written: then waits a little, so that it can be read again. A replica may lag
/// behind what its leader has acknowledged; a condition that does not hold there may hold.
pub(super) async fn doubt(stream: &Stream, doubts: &mut u32) -> bool {
    let left = *doubts < DOUBTS;
    *doubts += 1;
    if !left {
        return false;
    }
    match stream.info().await {
        Ok(info) if info.config.num_replicas <= 1 => return false,
        Ok(_) => {}
        // Nobody leads, and so nobody can be sure: the next leader is to say.
        Err(_) => *doubts = DOUBTS,
    }
    tokio::time::sleep(LAG / DOUBTS).await;
    true
}

/// The last message of this subject: from any replica, and after the last doubt from the leader. A server that was away may lag
/// for longer than anybody waits here. Where the leader may not be asked, nobody answers, and a replica has to do.
pub(super) async fn latest(
    stream: &Stream,
    subject: &str,
    doubts: u32,
) -> Result<Option<Stored>, StoreError> {
    if doubts >= DOUBTS
        && let Ok(last) = tokio::time::timeout(LAG, stream.leaders_last(subject)).await
    {
        return last;
    }
    stream.last(subject).await
}

/// Whether the bucket has several copies, as far as anybody knows.
pub(super) async fn replicated(stream: &Stream) -> bool {
    let info = stream.info().await;
    info.is_ok_and(|info| info.config.num_replicas > 1)
}

/// Metadata that cannot be read is none, and may be replaced.
pub(super) fn read(stored: &Stored) -> Option<Current> {
    let info = parse(stored).ok()?;
    let meta = serde_json::from_slice(&stored.payload).ok()?;
    Some(Current { info, meta })
}

/// Publishes what `decide` makes of what is there. It is asked again when somebody else was faster.
pub(super) async fn commit(
    stream: &Stream,
    name: &str,
    mut decide: impl FnMut(Option<&Current>) -> Result<Meta, StoreError>,
) -> Result<Committed, Failed> {
    let subject = meta_subject(stream.bucket(), name);
    let began = Instant::now();
    // The versions that an attempt without an answer may have replaced, and what it published.
    let (mut replaced, mut unknown) = (Vec::new(), None::<(Meta, Bytes)>);
    let (mut failed, mut doubts) = (StoreError::Timeout, 0);
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            let (base, max) = (Duration::from_millis(10), Duration::from_secs(2));
            tokio::time::sleep(back_off(attempt, base, max)).await;
        }
        let last = match latest(stream, &subject, doubts).await {
            Ok(last) => last,
            Err(error) if passes(&error) && began.elapsed() < PATIENCE => {
                failed = error;
                continue;
            }
            Err(_) if unknown.is_some() => return Err(Failed::Unknown),
            Err(error) => return Err(Failed::Refused(error)),
        };
        let expected = last.as_ref().map_or(0, |last| last.sequence);
        if let (Some((meta, body)), Some(last)) = (&unknown, &last)
            && last.payload == *body
        {
            // An attempt without an answer had its effect.
            let info = meta.clone().into_info(last.sequence, last.created);
            return Ok(Committed { info, replaced });
        }
        let there = last.as_ref().and_then(read);
        let meta = match decide(there.as_ref()) {
            Ok(meta) => meta,
            Err(error) if doubt(stream, &mut doubts).await => {
                failed = error;
                continue;
            }
            Err(_) if unknown.is_some() => return Err(Failed::Unknown),
            Err(error) => return Err(Failed::Refused(error)),
        };
        let body = serde_json::to_vec(&meta).map_err(|error| Failed::Refused(other(&error)))?;
        let body = Bytes::from(body);
        if let Some(Current { info, .. }) = there
            && info.link.is_none()
            && info.nuid != meta.nuid
            && !info.nuid.is_empty()
            && !replaced.contains(&info.nuid)
        {
            replaced.push(info.nuid);
        }
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, "sub");
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            HeaderValue::from(expected),
        );
        match stream.publish(subject.clone(), headers, body.clone()).await {
            Ok(revision) => {
                let info = meta.into_info(revision, SystemTime::now());
                return Ok(Committed { info, replaced });
            }
            Err(Refusal::WrongLastSequence(current)) => {
                failed = StoreError::Conflict {
                    key: name.to_owned(),
                    expected,
                    current,
                };
            }
            // Conditional on the same revision, a repetition is harmless.
            Err(Refusal::Other(StoreError::Timeout)) => {
                let asked = unknown.replace((meta, body)).is_some();
                if asked && began.elapsed() > PATIENCE / 2 {
                    break;
                }
            }
            Err(refusal) => {
                let error = stream.explain(refusal).await;
                if !passes(&error) || began.elapsed() > PATIENCE {
                    failed = error;
                    break;
                }
                failed = error;
            }
        }
    }
    Err(if unknown.is_some() {
        Failed::Unknown
    } else {
        Failed::Refused(failed)
    })
}

/// Ends a change in a task of its own, even when nobody waits any more: from here on it is a matter of moments, and a
/// half-done state would be hard to undo.
pub(super) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let ended = tokio::spawn(change).await;
    // Cancelled with its runtime: nobody knows how far it came.
    ended.unwrap_or(Err(StoreError::Timeout))
}

/// Removes the chunks of versions that are no more. They cost room and nothing else, because nothing refers to them: so the
/// caller waits for one attempt, and others follow behind its back.
pub(super) async fn purge_versions(stream: &Stream, nuids: impl IntoIterator<Item = String>) {
    for nuid in nuids {
        let subject = chunk_subject(stream.bucket(), &nuid);
        let once = tokio::time::timeout(Duration::from_secs(2), stream.purge(&subject));
        if !matches!(once.await, Ok(Ok(()))) {
            let stream = stream.clone();
            tokio::spawn(async move { purge_again(&stream, &nuid, 1).await });
        }
    }
}

pub(super) async fn purge_again(stream: &Stream, nuid: &str, begin: u32) {
    let subject = chunk_subject(stream.bucket(), nuid);
    for attempt in begin..12 {
        if attempt > 0 {
            let (base, max) = (Duration::from_millis(200), Duration::from_secs(5));
            tokio::time::sleep(back_off(attempt, base, max)).await;
        }
        match stream.purge(&subject).await {
            Ok(()) | Err(StoreError::BucketNotFound { .. } | StoreError::Sealed) => return,
            Err(error) => {
                tracing::debug!(?stream, nuid, %error, "chunks could not be purged yet");
            }
        }
    }
    tracing::warn!(
        ?stream,
        nuid,
        "the chunks of a replaced or failed object stay until `remove_orphans`"
    );
}
