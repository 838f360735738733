//! How many writes may wait, and what a writer says about itself. Shared between the handles and the task.

use crate::telemetry::WriterMetrics;
use serde::Serialize;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, TryAcquireError};
use tokio::time::Instant;

/// What a write costs besides its key and its value: the queue's own entry.
const OVERHEAD: usize = 256;

/// What one writer does, as of now.
///
/// ```
/// let stats = nats_service::WriterStats::default();
/// assert_eq!(stats.queued, 0);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WriterStats {
    /// The bucket.
    pub bucket: String,
    /// Writes that were taken over, ever: the sum of `written`, `superseded`, `given_up`, `queued` and `in_flight`, but for
    /// what changes while they are read.
    pub accepted: u64,
    /// Writes that wait to be sent, the ones between two attempts among them.
    pub queued: usize,
    /// Writes that were sent and are not acknowledged yet.
    pub in_flight: usize,
    /// Writes that were acknowledged.
    pub written: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Writes that were not needed, because a newer one of their key came in a bucket that keeps only the last.
    pub superseded: u64,
    /// Writes that ended without being stored, or without it being known.
    pub given_up: u64,
    /// Bytes of all writes that have not ended.
    pub bytes_pending: usize,
    /// How long the oldest of them has waited, in seconds on the wire.
    #[serde(serialize_with = "seconds")]
    pub oldest_pending: Option<Duration>,
}

fn seconds<S: serde::Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs_f64()).serialize(to)
}

/// No room, or no longer any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// As many writes, or bytes, wait for the store as may.
    #[error("too many answers wait to be stored")]
    Full,
    /// The writer is drained.
    #[error("the writer has stopped")]
    Closed,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bucket: Arc<str>,
    slots: Semaphore,
    max_bytes: usize,
    bytes: AtomicUsize,
    freed: Notify,
    pending: AtomicUsize,
    accepted: AtomicU64,
    start: Instant,
    pub(super) metrics: WriterMetrics,
    pub(super) in_flight: AtomicUsize,
    pub(super) written: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) superseded: AtomicU64,
    pub(super) given_up: AtomicU64,
    /// Milliseconds from `start`, plus one; zero when nothing is pending.
    oldest: AtomicU64,
}

impl Shared {
    pub(super) fn new(bucket: &str, max_writes: usize, max_bytes: usize) -> Self {
        Self {
            bucket: bucket.into(),
            slots: Semaphore::new(max_writes.min(Semaphore::MAX_PERMITS)),
            max_bytes,
            bytes: AtomicUsize::new(0),
            freed: Notify::new(),
            pending: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            start: Instant::now(),
            metrics: WriterMetrics::new(bucket),
            in_flight: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            superseded: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
        }
    }

    fn has_bytes(&self) -> bool {
        self.bytes.load(Relaxed) < self.max_bytes
    }

    pub(super) fn try_reserve(self: &Arc<Self>) -> Result<Permit, Full> {
        if !self.has_bytes() {
            return Err(if self.slots.is_closed() {
                Full::Closed
            } else {
                Full::Full
            });
        }
        match self.slots.try_acquire() {
            Ok(slot) => Ok(Permit::new(slot, self)),
            Err(TryAcquireError::NoPermits) => Err(Full::Full),
            Err(TryAcquireError::Closed) => Err(Full::Closed),
        }
    }

    pub(super) async fn reserve(self: &Arc<Self>, timeout: Duration) -> Result<Permit, Full> {
        // The hot path starts no timer.
        match self.try_reserve() {
            Err(Full::Full) => tokio::time::timeout(timeout, self.wait())
                .await
                .unwrap_or(Err(Full::Full)),
            other => other,
        }
    }

    async fn wait(self: &Arc<Self>) -> Result<Permit, Full> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if !self.has_bytes() {
                if self.slots.is_closed() {
                    return Err(Full::Closed);
                }
                freed.await;
                continue;
            }
            let slot = self.slots.acquire().await;
            let slot = slot.map_err(|_| Full::Closed)?;
            // Others may have filled it up while this one waited for its slot.
            if self.has_bytes() {
                return Ok(Permit::new(slot, self));
            }
        }
    }

    /// Gives room back.
    pub(super) fn free(&self, room: Room) {
        if room.slots == 0 {
            return;
        }
        self.pending.fetch_sub(room.writes, Relaxed);
        let before = self.bytes.fetch_sub(room.bytes, Relaxed);
        self.slots.add_permits(room.slots);
        if before >= self.max_bytes && before - room.bytes < self.max_bytes {
            self.freed.notify_waiters();
        }
    }

    /// No permits from now on; those that are out stay good.
    pub(super) fn close(&self) {
        self.slots.close();
        self.freed.notify_waiters();
    }

    pub(super) fn set_oldest(&self, oldest: Option<Instant>) {
        let value = oldest.map_or(0, |at| {
            let since = at.saturating_duration_since(self.start).as_millis();
            u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
        });
        self.oldest.store(value, Relaxed);
    }

    pub(super) fn stats(&self) -> WriterStats {
        let (pending, in_flight) = (self.pending.load(Relaxed), self.in_flight.load(Relaxed));
        let oldest = self.oldest.load(Relaxed);
        WriterStats {
            bucket: self.bucket.to_string(),
            accepted: self.accepted.load(Relaxed),
            queued: pending.saturating_sub(in_flight),
            in_flight,
            written: self.written.load(Relaxed),
            retried: self.retried.load(Relaxed),
            superseded: self.superseded.load(Relaxed),
            given_up: self.given_up.load(Relaxed),
            bytes_pending: self.bytes.load(Relaxed),
            oldest_pending: oldest
                .checked_sub(1)
                .map(|since| (self.start + Duration::from_millis(since)).elapsed()),
        }
    }
}

/// What writes hold of the bounds.
#[derive(Debug, Default)]
pub(super) struct Room {
    slots: usize,
    writes: usize,
    bytes: usize,
}

impl AddAssign for Room {
    fn add_assign(&mut self, other: Self) {
        self.slots += other.slots;
        self.writes += other.writes;
        self.bytes += other.bytes;
    }
}

/// Room for one write. It goes into the write, and is given back when the write has ended.
#[derive(Debug)]
#[must_use = "room that is dropped is free again"]
pub(crate) struct Permit {
    shared: Arc<Shared>,
    /// What the write holds; zero as long as there is none.
    bytes: usize,
    /// The room was handed on.
    given: bool,
}

impl Permit {
    fn new(slot: SemaphorePermit<'_>, shared: &Arc<Shared>) -> Self {
        // It is given back by `Shared::free`.
        slot.forget();
        Self {
            shared: shared.clone(),
            bytes: 0,
            given: false,
        }
    }

    /// What it holds, to be given back by `Shared::free`.
    pub(super) fn into_room(mut self) -> Room {
        self.given = true;
        self.room()
    }

    fn room(&self) -> Room {
        Room {
            slots: 1,
            writes: usize::from(self.bytes > 0),
            bytes: self.bytes,
        }
    }

    /// The write is there, and its size is known.
    pub(super) fn fill(&mut self, size: usize) {
        self.bytes = size + OVERHEAD;
        self.shared.bytes.fetch_add(self.bytes, Relaxed);
        self.shared.pending.fetch_add(1, Relaxed);
        self.shared.accepted.fetch_add(1, Relaxed);
    }

    /// Whether it is of this writer.
    pub(super) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.given {
            self.shared.free(self.room());
        }
    }
}
