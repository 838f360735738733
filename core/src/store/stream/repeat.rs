//! When something is sent again; and questions, which are while nobody answers.
//!
//! Servers drop a request without a word that comes while a leader changes: nobody is its leader yet, and nobody knows that
//! there is none. What was on its way over a connection that broke is lost as well. One who only waited would wait for his whole
//! time limit, though the next request would have been answered.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::pin::pin;
use std::time::Duration;

/// A cluster that is well answers in milliseconds, and a busy one within that time.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// An election takes four to eight seconds: as often as that costs its servers nothing.
const THEN_EVERY: Duration = Duration::from_secs(2);

/// The first answer to a question that may be asked any number of times. The earlier ones still count, since a slow answer is
/// an answer; the limit is that of the first.
pub(crate) async fn repeated<F: Future>(ask: impl Fn() -> F) -> F::Output {
    let mut first = pin!(ask());
    if let Ok(answer) = tokio::time::timeout(FIRST_AFTER, first.as_mut()).await {
        return answer;
    }
    let mut others = FuturesUnordered::new();
    loop {
        others.push(ask());
        tokio::select! {
            answer = &mut first => return answer,
            Some(answer) = others.next() => return answer,
            () = tokio::time::sleep(THEN_EVERY) => {}
        }
    }
}

/// How long to wait before the `attempt`-th repetition: doubling from `base`, no more than `max`, and half of it by chance,
/// so that a hundred clients of one broken server do not come back as one.
pub(crate) fn back_off(attempt: u32, base: Duration, max: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let full = base.saturating_mul(1 << attempt.min(16)).min(max);
    // A fresh `RandomState` is seeded by the system, which is chance enough here.
    let chance = (RandomState::new().hash_one(attempt) % 1024) as u32;
    full / 2 + full / 2 * chance / 1024
}
