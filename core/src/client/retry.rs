//! Whether a call is sent again, when, and how often: a policy, and the budget that keeps many callers from
//! repeating a service to death.
//!
//! Only calls that may happen twice are repeated: those of an `#[endpoint(idempotent)]`, and those whose caller says so.

use super::error::CallError;
use super::exchange::{Exchange, Failure, Received};
use crate::wire::error::Code;
use crate::wire::moment::bounded;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// When a call that failed for the moment is sent again.
///
/// It is about calls that may happen twice: those of a method with `#[endpoint(idempotent)]`, and those that
/// [`Call::idempotent`](crate::Call::idempotent) marks. Of these, one is repeated when nobody listened, when the answer was an
/// error of the code `Unavailable`, when the connection failed, and, where [`attempt_timeout`](Retry::attempt_timeout) is set,
/// when an attempt had no reply in that time. All attempts and the pauses between them lie within the call's one time-out.
///
/// The pause doubles from attempt to attempt, and a random half of it is left out, so that callers which failed together do
/// not come back together. Repeats are paid from a budget that the clones of a client share: a repeat costs one, a
/// call that succeeds earns a tenth. So a service that is down gets no more than `budget` repeats, and one in trouble at most a
/// tenth more calls than usual.
///
/// ```
/// # use nats_service::{Retry, async_nats, nats_service};
/// use std::time::Duration;
///
/// #[nats_service]
/// trait Profiles {
///     #[endpoint(idempotent)]
///     async fn find(&self, id: String) -> String;
/// }
///
/// async fn find(nats: async_nats::Client) -> Result<(), Box<dyn std::error::Error>> {
///     let patient = Retry::default().attempts(8).attempt_timeout(Duration::from_millis(200));
///     let profiles = ProfilesClient::new(nats).with_retry(patient);
///     profiles.find("ada".to_string()).await?;
///     profiles.find("ada".to_string()).retry(Retry::never()).await?; // this one call is sent once
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    attempts: u32,
    first_pause: Duration,
    longest_pause: Duration,
    attempt_timeout: Option<Duration>,
    budget: u32,
}

impl Default for Retry {
    /// Four attempts, with pauses of about 50, 100 and 200 ms, and a budget of 100.
    fn default() -> Self {
        Self {
            attempts: 4,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(1),
            attempt_timeout: None,
            budget: 100,
        }
    }
}

impl Retry {
    /// Every call is sent once.
    #[must_use]
    pub fn never() -> Self {
        Self::default().attempts(1)
    }

    /// How often a call is sent at most, the first time included.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The longest pause after the first attempt (50 ms), and the longest of all (1 s).
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first_pause = first;
        self.longest_pause = longest.max(first);
        self
    }

    /// How long one attempt waits for its reply, before the next is made. Without it an attempt waits for as long as
    /// the call does, and a time-out is not followed by another attempt.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// How many repeats a client may have to its credit (100). It begins with all of them. Of a policy that is given to
    /// one call this is not looked at: the budget is the client's.
    #[must_use]
    pub fn budget(mut self, repeats: u32) -> Self {
        self.budget = repeats;
        self
    }

    pub(super) fn repeats(&self) -> bool {
        self.attempts > 1
    }

    /// The pause after attempt number `attempt`, which is 1 or more; `random` is between 0 and 1.
    fn pause(&self, attempt: u32, random: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt - 1);
        let pause = self.first_pause.saturating_mul(doubled);
        pause.min(self.longest_pause).mul_f64(1.0 - random / 2.0)
    }
}

/// A client's policy, and the budget of all who share it.
#[derive(Debug)]
pub(super) struct Retrying {
    pub(super) policy: Retry,
    budget: Budget,
}

impl Retrying {
    pub(super) fn new(policy: Retry) -> Self {
        Self {
            policy,
            budget: Budget::new(policy.budget),
        }
    }
}

/// What a repeat costs; a success earns one.
const COST: u32 = 10;

#[derive(Debug)]
struct Budget {
    credit: AtomicU32,
    most: u32,
}

impl Budget {
    fn new(repeats: u32) -> Self {
        let most = repeats.saturating_mul(COST);
        Self {
            credit: AtomicU32::new(most),
            most,
        }
    }

    fn earn(&self) {
        // Full is the usual state, and then nobody writes what all callers share.
        if self.credit.load(Relaxed) < self.most {
            let more = |credit| (credit < self.most).then(|| credit + 1);
            let _ = self.credit.fetch_update(Relaxed, Relaxed, more);
        }
    }

    fn spend(&self) -> bool {
        let less = |credit: u32| credit.checked_sub(COST);
        self.credit.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}

/// Sends until there is an answer, or no sense in going on.
pub(super) async fn run(exchange: Exchange, policy: Retry) -> Result<Received, Failure> {
    let subject = exchange.subject();
    let budget = &exchange.core.retrying.budget;
    let deadline = Instant::now() + bounded(exchange.timeout);
    for attempt in 1.. {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = policy.attempt_timeout.map_or(left, |limit| limit.min(left));
        let failure = match exchange.attempt(limit).await {
            Ok(received) => {
                budget.earn();
                return Ok(Received {
                    attempts: attempt,
                    ..received
                });
            }
            Err(CallError::Timeout { .. }) if limit == left => CallError::Timeout {
                subject: subject.clone(),
                after: exchange.timeout,
            },
            Err(failure) => failure,
        };
        if !passes(&failure) {
            return Err(failure);
        }
        let pause = policy.pause(attempt, random());
        let late = Instant::now() + bounded(pause) >= deadline;
        if attempt >= policy.attempts || late || !budget.spend() {
            return Err(failure.after(attempt));
        }
        tracing::debug!(%subject, attempt, ?pause, error = %failure, "a call is repeated");
        tokio::time::sleep(pause).await;
    }
    unreachable!("attempts are counted up to their bound")
}

/// Whether it may be different the next time.
fn passes(failure: &Failure) -> bool {
    match failure {
        CallError::NoResponders { .. } | CallError::Timeout { .. } | CallError::Connection(_) => {
            true
        }
        CallError::Service(error) | CallError::Remote(error) => error.code() == Code::Unavailable,
        _ => false,
    }
}

/// Between 0 and 1. The keys of a new hasher are good enough for pauses.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 32;
    bits as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_at_most_half_is_left_out() {
        let policy = Retry::default();
        let millis = |attempt, random| policy.pause(attempt, random).as_millis();
        assert_eq!([1, 2, 3, 9].map(|n| millis(n, 0.0)), [50, 100, 200, 1000]);
        assert_eq!([1, 2, 3, 40].map(|n| millis(n, 1.0)), [25, 50, 100, 500]);
        assert!((0..100).map(|_| random()).all(|r| (0.0..=1.0).contains(&r)));
        let different: std::collections::HashSet<_> = (0..8).map(|_| random().to_bits()).collect();
        assert!(different.len() > 1);
    }

    #[test]
    fn a_budget_is_spent_and_earned_back_by_tenths_and_holds_no_more_than_it_began_with() {
        let budget = Budget::new(2);
        budget.earn();
        assert_eq!(
            [budget.spend(), budget.spend(), budget.spend()],
            [true, true, false]
        );
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend());
        (0..100).for_each(|_| budget.earn());
        assert_eq!(
            [budget.spend(), budget.spend(), budget.spend()],
            [true, true, false]
        );
    }
}
