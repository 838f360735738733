//! What a cache counts; it stands in the `data` of the endpoint's `$SRV.STATS`.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of one method's cache.
#[derive(Debug, Default)]
pub(crate) struct CacheStats {
    /// Answers out of the bucket; kept errors are among them.
    pub(super) hits: AtomicU64,
    /// Calls of the handler.
    pub(super) misses: AtomicU64,
    /// Calls that waited for the handler call of another, and had its outcome.
    pub(super) waited: AtomicU64,
    /// Answers out of the bucket that were no longer fresh, since the handler failed.
    pub(super) stale: AtomicU64,
    /// Entries that are no answer of this method; each was a miss.
    pub(super) undecodable: AtomicU64,
    /// Looks into the bucket that failed, took too long, or were not taken after such a one.
    pub(super) bypassed: AtomicU64,
    /// Answers that were not stored, because their key was written or evicted while the handler ran.
    pub(super) outdated: AtomicU64,
    /// Answers that could not be stored for another reason.
    pub(super) unwritten: AtomicU64,
}

/// One reading.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CacheReading {
    hits: u64,
    misses: u64,
    waited: u64,
    stale: u64,
    undecodable: u64,
    bypassed: u64,
    outdated: u64,
    unwritten: u64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl CacheStats {
    /// Each by its name, for metrics.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 8] {
        let now = self.read();
        [
            ("hit", now.hits),
            ("miss", now.misses),
            ("waited", now.waited),
            ("stale", now.stale),
            ("undecodable", now.undecodable),
            ("bypassed", now.bypassed),
            ("outdated", now.outdated),
            ("unwritten", now.unwritten),
        ]
    }

    pub(crate) fn read(&self) -> CacheReading {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        CacheReading {
            hits: of(&self.hits),
            misses: of(&self.misses),
            waited: of(&self.waited),
            stale: of(&self.stale),
            undecodable: of(&self.undecodable),
            bypassed: of(&self.bypassed),
            outdated: of(&self.outdated),
            unwritten: of(&self.unwritten),
        }
    }
}
