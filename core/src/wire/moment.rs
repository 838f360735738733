//! How long users say that something may take, who may mean "for as long as it takes".

use std::time::Duration;

/// Longer than anybody waits, and not too long for any clock.
const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// As much of it as can be added to a clock's time: `Duration::MAX` is more than any counts.
pub(crate) fn bounded(duration: Duration) -> Duration {
    duration.min(FOR_EVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_duration_leads_to_a_moment_of_every_clock() {
        let far = std::time::Instant::now() + bounded(Duration::MAX);
        assert!(tokio::time::Instant::from_std(far) > tokio::time::Instant::now());
        assert_eq!(bounded(Duration::from_secs(1)), Duration::from_secs(1));
    }
}
