//! The one place that waits: for a condition, with a deadline, and never for a length of time.

use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::Error;

const FIRST_INTERVAL: Duration = Duration::from_millis(1);
const LONGEST_INTERVAL: Duration = Duration::from_millis(50);

/// Asks `probe` again and again until it has a value, or an error that waiting will not mend.
///
/// The intervals grow, so that what is quick is seen at once and what is slow is not asked too often.
pub(crate) async fn wait_until<T, F>(
    waiting_for: &'static str,
    deadline: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<Option<T>, Error>>,
{
    let asking = async {
        let mut interval = FIRST_INTERVAL;
        loop {
            if let Some(value) = probe().await? {
                return Ok(value);
            }
            sleep(interval).await;
            interval = (interval * 3 / 2).min(LONGEST_INTERVAL);
        }
    };
    timeout(deadline, asking).await.unwrap_or_else(|_| {
        Err(Error::Timeout {
            waiting_for,
            after: deadline,
            log: String::new(),
        })
    })
}
