//! The writer that keeps a service's answers: one per bucket, shared by all that write to it in one process.
//!
//! What it promises, once a write is submitted:
//! - it is stored, however long the bucket is away, unless the bucket refuses this very message for good or the writer
//!   is drained and runs out of time; both end at the failure hook, with the value;
//! - writes of one key are stored in the order of their submission, retries included: an old value never comes back.
//!   This holds within one process; instances that write one key at the same time have no order between them;
//! - a repeat is harmless: every attempt has the write's own `Nats-Msg-Id`, and the stream drops what it has seen within
//!   its duplicate window (two minutes, or the bucket's ttl where that is shorter); or it is in a batch, of which nothing is
//!   repeated before it is known what is stored. A repeat after a longer outage, or where a batch was lost with its server and
//!   the user may not read from the leader, can store the same value as a further revision;
//! - memory is bounded: a [`Permit`] is taken before the work that makes the value.
//!
//! What it leaves out: what a value means and how it is encoded, and what a service does when there is no room.
//!
//! `queue.rs` holds the order, `health.rs` the pauses and `ingest.rs` the batches, all without I/O; `actor.rs` is the task,
//! `hooks.rs` whom it tells; `kv.rs` and `object.rs` speak with the server, and `readback.rs` where a batch was lost.

mod actor;
mod admission;
mod ages;
mod failure;
mod health;
mod hooks;
mod ingest;
mod kv;
mod object;
mod queue;
mod readback;
mod timers;

pub use admission::WriterStats;
pub(crate) use admission::{Full, Permit};
use failure::Fault;
pub use failure::{FailedWrite, FailureHook, WriteError};
pub(crate) use hooks::Hooks;
pub use hooks::StoredWrite;

use super::bucket::Provisioned;
use crate::telemetry::{self, Trace};
use crate::wire::spec::StoreKind;
use actor::{Actor, Message, Transport};
use admission::Shared;
use async_nats::jetstream::Context;
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::Span;

/// What is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteAction {
    /// This value under the key.
    Put(Bytes),
    /// The key is to be deleted.
    Delete,
    /// Only in a KV bucket: what a cache writes.
    PutIf(Box<Conditional>),
}

/// A write that is right only while nobody else has written its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conditional {
    /// The key's last revision, markers included; 0 for none.
    pub(crate) expected: u64,
    pub(crate) body: Bytes,
    /// It marks a deletion: for readers of the bucket there is no value.
    pub(crate) marker: bool,
    /// Besides those of every write. Free of line breaks.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// One write.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// The key, or the object's name.
    pub(crate) key: String,
    pub(crate) action: WriteAction,
    /// What a value is encoded as.
    pub(crate) content_type: &'static str,
    /// Where it comes from; the writer fills it in.
    pub(crate) trace: Trace,
}

impl Write {
    /// The encoded value, unless the key is to be deleted.
    fn value(&self) -> Option<&Bytes> {
        match &self.action {
            WriteAction::Put(value) => Some(value),
            WriteAction::Delete => None,
            WriteAction::PutIf(conditional) => Some(&conditional.body),
        }
    }

    fn size(&self) -> usize {
        self.key.len() + self.value().map_or(0, Bytes::len)
    }

    fn failed(self, bucket: &Arc<str>, error: WriteError, attempts: u32) -> FailedWrite {
        FailedWrite {
            bucket: bucket.clone(),
            value: self.value().cloned(),
            key: self.key,
            content_type: self.content_type,
            error,
            attempts,
        }
    }
}

/// The bounds of a writer.
#[derive(Debug, Clone)]
pub(crate) struct WriterLimits {
    /// Writes that may wait, at most.
    pub(crate) max_writes: usize,
    /// Bytes that may wait. Checked as "currently below", since the size of an answer is not known before it is made: it
    /// is exceeded by what is being handled at that moment, at most.
    pub(crate) max_bytes: usize,
    /// KV writes in flight at once.
    pub(crate) window: usize,
    /// How long an acknowledgement may take before the write is sent again.
    pub(crate) ack_timeout: Duration,
}

impl Default for WriterLimits {
    fn default() -> Self {
        Self {
            max_writes: 65_536,
            max_bytes: 64 * 1024 * 1024,
            window: 1024,
            ack_timeout: Duration::from_secs(5),
        }
    }
}

/// What a drain came to.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// Answers stored from its beginning to its end.
    pub written: u64,
    /// Answers that were not stored in time, whole. With [`WriteError::Unknown`] one may be stored all the same.
    pub unwritten: Vec<FailedWrite>,
}

/// The writers of one process, one per bucket.
#[derive(Clone)]
pub(crate) struct Writers {
    inner: Arc<WritersInner>,
}

struct WritersInner {
    js: Context,
    limits: WriterLimits,
    hooks: Hooks,
    writers: Mutex<HashMap<(bool, String), Writer>>,
}

impl fmt::Debug for Writers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writers").finish_non_exhaustive()
    }
}

impl Writers {
    pub(crate) fn new(js: Context, limits: WriterLimits, hooks: impl Into<Hooks>) -> Self {
        Self {
            inner: Arc::new(WritersInner {
                js,
                limits,
                hooks: hooks.into(),
                writers: Mutex::new(HashMap::new()),
            }),
        }
    }

    /// The writer of this bucket; the first call starts it.
    ///
    /// # Errors
    /// When the connection is closed.
    pub(crate) async fn writer(
        &self,
        bucket: &Provisioned,
    ) -> Result<Writer, async_nats::SubscribeError> {
        let inner = &*self.inner;
        let key = (bucket.kind == StoreKind::Kv, bucket.name.clone());
        if let Some(writer) = self.lock().get(&key) {
            return Ok(writer.clone());
        }
        match bucket.kind {
            StoreKind::Kv => {
                // Of a batch only the count comes back, and whoever is told of writes is told of their revisions.
                let batches = inner.hooks.stored.is_none();
                let transport = kv::Kv::open(&inner.js, bucket, batches).await?;
                Ok(self.first(key, || Writer::spawn(bucket, inner, transport)))
            }
            StoreKind::Object => {
                let transport = object::Objects::new(&inner.js, &bucket.name);
                Ok(self.first(key, || Writer::spawn(bucket, inner, transport)))
            }
        }
    }

    /// Two tasks may get here for one bucket: the subscription of the one that comes second is dropped again.
    fn first(&self, key: (bool, String), spawn: impl FnOnce() -> Writer) -> Writer {
        self.lock().entry(key).or_insert_with(spawn).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(bool, String), Writer>> {
        // Nothing in here is left half done by a panic: it is one insertion.
        let writers = &self.inner.writers;
        writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all writers do.
    pub(crate) fn stats(&self) -> Vec<WriterStats> {
        self.lock().values().map(Writer::stats).collect()
    }

    /// Drains all of them, at the same time.
    pub(crate) async fn drain(&self, deadline: Instant) -> DrainReport {
        let writers: Vec<Writer> = self.lock().values().cloned().collect();
        let reports = join_all(writers.iter().map(|writer| writer.drain(deadline))).await;
        let mut all = DrainReport::default();
        for report in reports {
            all.written += report.written;
            all.unwritten.extend(report.unwritten);
        }
        all
    }
}

/// The writer of one bucket. Cheap to clone; all clones are the same writer.
#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Message>,
    urgent: Arc<Notify>,
    hooks: Hooks,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bucket = &self.shared.bucket;
        f.debug_struct("Writer")
            .field("bucket", bucket)
            .finish_non_exhaustive()
    }
}

impl Writer {
    fn spawn(
        bucket: &Provisioned,
        set: &WritersInner,
        mut transport: impl Transport + 'static,
    ) -> Self {
        let limits = &set.limits;
        let shared = Arc::new(Shared::new(
            &bucket.name,
            limits.max_writes,
            limits.max_bytes,
        ));
        let (messages, inbox) = mpsc::unbounded_channel();
        let queue = transport.limits(limits, bucket.keeps_only_the_last());
        let urgent = Arc::new(Notify::new());
        let actor = Actor::new(
            shared.clone(),
            set.hooks.clone(),
            inbox,
            set.js.client(),
            transport,
            queue,
            urgent.clone(),
        );
        tokio::spawn(actor.run());
        Self {
            shared,
            messages,
            urgent,
            hooks: set.hooks.clone(),
        }
    }

    /// Room for one write, if there is any at this moment.
    pub(crate) fn try_reserve(&self) -> Result<Permit, Full> {
        self.shared.try_reserve()
    }

    /// Room for one write; waits for it.
    ///
    /// # Errors
    /// When there is none in time, or the writer is drained.
    pub(crate) async fn reserve(&self, timeout: Duration) -> Result<Permit, Full> {
        self.shared.reserve(timeout).await
    }

    /// Takes a write over. From here on the writer answers for it: it never fails here, and never waits.
    pub(crate) fn submit(&self, write: Write, permit: Permit) {
        self.send(write, permit, None);
    }

    /// Takes a write over, and waits until it is stored. Returns the revision; 0 for an object, which has none.
    ///
    /// A caller that goes away does not take its write with it.
    ///
    /// # Errors
    /// When it was not stored until `deadline`; [`WriteError::Unknown`] when that is not certain. It is not tried again
    /// after that, and the failure hook does not hear of it: the caller knows.
    pub(crate) async fn submit_and_wait(
        &self,
        write: Write,
        permit: Permit,
        deadline: Instant,
    ) -> Result<u64, WriteError> {
        let (waiter, outcome) = oneshot::channel();
        self.send(write, permit, Some((deadline, waiter)));
        outcome.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Takes a write over that nobody relies on: it is tried until `deadline`, and then forgotten.
    pub(crate) fn offer(&self, write: Write, permit: Permit, deadline: Instant) {
        let (waiter, _) = oneshot::channel();
        self.send(write, permit, Some((deadline, waiter)));
    }

    fn send(&self, mut write: Write, mut permit: Permit, wait: Option<(Instant, Waiter)>) {
        debug_assert!(permit.is_of(&self.shared), "a permit of another bucket");
        permit.fill(write.size());
        let (deadline, waiter) = wait.unzip();
        let awaited = deadline.is_some();
        let span = telemetry::write(&self.shared.bucket, &write.key);
        write.trace = Trace::of(&span);
        let job = Box::new(Job {
            write,
            span,
            waiter,
            awaited,
            permit,
        });
        if let Err(mpsc::error::SendError(Message::Write { job, .. })) =
            self.messages.send(Message::Write { job, deadline })
        {
            let hook = self.hooks.failed.as_ref();
            end_unwritten(&self.shared, hook, *job, WriteError::Closed, 0);
        }
        if awaited {
            self.urgent.notify_one();
        }
    }

    /// Tells of an object that was stored as it was produced, beside the writer.
    pub(crate) fn stored_beside(&self, name: &str) {
        let bucket = &self.shared.bucket;
        self.hooks.stored(bucket, || (name.to_owned(), None, false));
    }

    /// As of now.
    pub(crate) fn stats(&self) -> WriterStats {
        self.shared.stats()
    }

    /// Gives no more room, waits until all that was submitted is stored, and ends the writer. What is not stored at
    /// `deadline` is in the report, and goes to the failure hook.
    ///
    /// A permit that is still out may be used until the writer has ended; what is submitted after that goes to the hook.
    /// The drain goes on when nobody waits for it. A second one reports nothing.
    pub(crate) async fn drain(&self, deadline: Instant) -> DrainReport {
        self.shared.close();
        let (done, report) = oneshot::channel();
        if self
            .messages
            .send(Message::Drain { deadline, done })
            .is_err()
        {
            return DrainReport::default();
        }
        self.urgent.notify_one();
        report.await.unwrap_or_default()
    }
}

type Waiter = oneshot::Sender<Result<u64, WriteError>>;

/// A write on its way. It is handed on by its address: a queue is larger than a processor's cache.
#[derive(Debug)]
struct Job {
    write: Write,
    /// Closed when the job goes.
    span: Span,
    /// Who waits for it, until told.
    waiter: Option<Waiter>,
    /// Somebody waited for it: its failure is theirs, and not the hook's.
    awaited: bool,
    permit: Permit,
}

impl Job {
    fn has_key_of(&self, other: &Self) -> bool {
        self.write.key == other.write.key
    }
}

/// Tells of a write that has ended unwritten whoever is to know. Returns it when it was nobody's in particular.
fn end_unwritten(
    shared: &Shared,
    hook: Option<&FailureHook>,
    job: Job,
    error: WriteError,
    attempts: u32,
) -> Option<FailedWrite> {
    use std::sync::atomic::Ordering::Relaxed;
    // Nobody was promised what a cache writes, and a conflict there is nothing to look into.
    if !matches!(job.write.action, WriteAction::PutIf(_)) {
        shared.given_up.fetch_add(1, Relaxed);
    }
    telemetry::unwritten(&job.span);
    if job.awaited {
        if let Some(waiter) = job.waiter {
            // A caller that has gone away needs no answer.
            let _ = waiter.send(Err(error));
        }
        return None;
    }
    let failed = job.write.failed(&shared.bucket, error, attempts);
    tracing::error!(
        bucket = %failed.bucket,
        key = %failed.key,
        attempts,
        error = %failed.error,
        "an answer was not stored"
    );
    if let Some(hook) = hook {
        hooks::call(&failed.bucket, || hook(&failed));
    }
    Some(failed)
}

#[cfg(test)]
mod batch_tests;
#[cfg(test)]
mod tests;
