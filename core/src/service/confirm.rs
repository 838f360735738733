//! Whether the server has taken a service's subscriptions.
//!
//! A denied one looks like any other to the client: the server says so in a line of its own, which only an observed
//! connection shows us. Without one a start confirms that the server has *read* the subscriptions, and no more.

use super::drain;
use super::start_error::StartError;
use crate::connection::{ConnectionEvents, Denial};
use async_nats::Client;
use std::time::{Duration, Instant};

const CONFIRM: Duration = Duration::from_secs(10);
/// What the server has said is here when the round trip has ended; another task has yet to hand it on, and this is its time.
const HANDED_ON: Duration = Duration::from_millis(100);

/// What a service needs of JetStream and is denied: of the API that makes or checks its own buckets. It ends at once what would otherwise be
/// waited for until nobody has answered, and never without the events.
pub(super) async fn denied_bucket(
    events: Option<ConnectionEvents>,
    streams: Vec<String>,
) -> Denial {
    let Some(events) = events else {
        return std::future::pending().await;
    };
    let begun = Instant::now();
    let denied = events.wait(|at, denial| {
        let stream = match denial {
            Denial::Publish { subject } if subject.starts_with("$JS.") => {
                subject.rsplit('.').next()
            }
            _ => None,
        };
        at >= begun && streams.iter().any(|ours| Some(&**ours) == stream)
    });
    denied.await
}

/// Returns when the server has processed the subscriptions that were sent since `begun`.
pub(super) async fn confirm(
    client: &Client,
    events: Option<&ConnectionEvents>,
    begun: Instant,
    subjects: &[String],
) -> Result<(), StartError> {
    let trip = async {
        match tokio::time::timeout(CONFIRM, drain::roundtrip(client)).await {
            Ok(Some(())) => Ok(()),
            Ok(None) | Err(_) => Err(StartError::NotConfirmed { after: CONFIRM }),
        }
    };
    let Some(events) = events else {
        return trip.await;
    };
    let inbox = client.new_inbox();
    let inboxes = inbox.rsplit_once('.').map_or("", |(prefix, _)| prefix);
    let denied = events.wait(|at, denial| {
        let subject = denial.subject();
        let ours = match denial {
            Denial::Subscribe { .. } => {
                subject.starts_with("$SRV.") || subjects.iter().any(|ours| ours == subject)
            }
            Denial::Publish { .. } => false,
        };
        at >= begun && (ours || subject.starts_with(inboxes))
    });
    let mut denied = std::pin::pin!(denied);
    let confirmed = tokio::select! {
        confirmed = trip => confirmed,
        denial = &mut denied => return Err(StartError::Denied(denial)),
    };
    confirmed?;
    match tokio::time::timeout(HANDED_ON, denied).await {
        Ok(denial) => Err(StartError::Denied(denial)),
        Err(_) => Ok(()),
    }
}
