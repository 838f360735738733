//! How long the oldest pending write has waited: writes are counted by the slice of time they came in.
//!
//! Writes end in any order, so a plain queue of instants would grow behind one that is stuck; counters by slice are as
//! few as there are slices with something pending.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const SLICE_MS: u64 = 50;

#[derive(Debug)]
pub(super) struct Ages {
    start: Instant,
    counts: BTreeMap<u64, usize>,
}

impl Ages {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            counts: BTreeMap::new(),
        }
    }

    /// Counts one more, and says in which slice.
    pub(super) fn add(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        let slice = u64::try_from(elapsed).unwrap_or(u64::MAX) / SLICE_MS;
        *self.counts.entry(slice).or_default() += 1;
        slice
    }

    pub(super) fn remove(&mut self, slice: u64) {
        if let Some(count) = self.counts.get_mut(&slice) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&slice);
            }
        }
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        let (slice, _) = self.counts.first_key_value()?;
        Some(self.start + Duration::from_millis(slice * SLICE_MS))
    }
}
