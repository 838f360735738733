//! Whether a bucket answers at all. When nothing but failures came for a while, writing pauses but for a few probes:
//! tens of thousands of waiting writes must not each knock on a door that is shut. The first success opens it again.

use std::time::Duration;
use tokio::time::Instant;

/// So many failures in a row, without one success, mean that it is the bucket and not a key.
const DOWN_AFTER: u32 = 32;
/// So many writes in flight while it is down. More than one, so that a key that can never be written (its subject is
/// denied, say, which shows as a time-out) does not stand for all.
const PROBES: usize = 4;
/// The longest pause between probes; short, since a probe costs one message.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// A write that waits for longer than an election takes is worth a word ..
const LONG_WAIT: Duration = Duration::from_secs(10);
/// .. and no more than one in so long, while it lasts.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// When it was last said that writes wait: nobody looks at statistics while all calls succeed.
#[derive(Debug, Default)]
pub(super) struct LongWaits {
    said: Option<Instant>,
}

impl LongWaits {
    /// How long the oldest write waits, where that is to be said now.
    pub(super) fn said_now(&mut self, oldest: Instant, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(oldest);
        let quiet = |said| now.saturating_duration_since(said) < SAID_AGAIN;
        if waited < LONG_WAIT || self.said.is_some_and(quiet) {
            return None;
        }
        self.said = Some(now);
        Some(waited)
    }
}

#[derive(Debug)]
pub(super) struct Health {
    failures: u32,
    next_probe: Option<Instant>,
    random: u64,
}

impl Health {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            next_probe: None,
            // Zero is the one state that a xorshift never leaves.
            random: seed | 1,
        }
    }

    pub(super) fn allows(&self, in_flight: usize, now: Instant) -> bool {
        match self.next_probe {
            None => true,
            Some(at) => in_flight < PROBES && now >= at,
        }
    }

    /// When the next probe may go out, if one is waited for.
    pub(super) fn next_probe(&self, in_flight: usize) -> Option<Instant> {
        self.next_probe.filter(|_| in_flight < PROBES)
    }

    /// Returns whether the bucket was down until now.
    pub(super) fn success(&mut self) -> bool {
        self.failures = 0;
        self.next_probe.take().is_some()
    }

    pub(super) fn reset(&mut self) {
        self.success();
    }

    pub(super) fn failure(&mut self, min: Duration, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if let Some(probes) = self.failures.checked_sub(DOWN_AFTER) {
            // Every probe is a few failures; the pause grows by the round.
            let round = probes / PROBES as u32;
            self.next_probe = Some(now + self.backoff(min, PROBE_MAX, round + 1));
        }
    }

    /// The pause after so many attempts: doubled each time, and between half and all of it by chance, so that what
    /// failed together does not come back together.
    pub(super) fn backoff(&mut self, min: Duration, max: Duration, attempts: u32) -> Duration {
        let factor = 1_u32 << attempts.saturating_sub(1).min(16);
        let pause = min.saturating_mul(factor).min(max);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let fraction = (self.random >> 40) as f64 / (1_u64 << 24) as f64;
        pause.mul_f64(0.5 + 0.5 * fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_is_said_once_a_minute_and_a_short_one_never() {
        let begun = Instant::now();
        let mut waits = LongWaits::default();
        let said = (0..150).filter(|second| {
            let now = begun + Duration::from_secs(*second);
            waits.said_now(begun, now).is_some()
        });
        assert_eq!(said.collect::<Vec<_>>(), [10, 70, 130]);
    }
}
