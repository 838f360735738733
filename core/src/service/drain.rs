//! The end of an endpoint's subscription, with nothing lost that the server has sent.
//!
//! A plain unsubscribe of async-nats forgets the subscription on this side when it *writes* the `UNSUB`, and so does its
//! `drain` as soon as it next reads: it does not wait for the server's answer. Requests that were on their way at that
//! moment are dropped without a word, and the server has counted them as delivered. What we want is the other order: the
//! server stops first, everything it has sent arrives, and only then is the subscription forgotten here.
//!
//! `UNSUB <sid> <max>` does it. The client keeps its side open until `max` messages have come, and the server ends its
//! side at once when `max` is a number that it cannot take: more than nine digits, in every version since 1.0. So: the
//! largest number there is, then a message to ourselves. The server handles what one connection sends in order, and sends in
//! order too; when that message is back, every request has arrived before it, and the local side may go. That costs one
//! round trip, under any load, and after a reconnection the client repeats the `UNSUB` by itself.
//!
//! If a server took the number as it is, requests would go on to come until the local side goes: it would be the plain
//! unsubscribe again, and no worse. The tests hold the server to it.
//!
//! Left out: requests that another server of a cluster has sent towards ours and that have not reached it yet. They are
//! that server's, and no client can wait for them.

use async_nats::connection::State;
use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use std::time::Duration;

/// A server that does not answer for so long is not there: it sends no requests, and passes no replies on.
const CONFIRM: Duration = Duration::from_secs(2);

/// Makes the subscription end after the last request that the server has sent for it.
pub(super) async fn end_intake(client: &Client, subscription: &mut Subscriber) {
    let told = subscription.unsubscribe_after(u64::MAX).await;
    if told.is_err() || !settled(client).await {
        tracing::warn!(
            "the server did not confirm the end of a subscription; requests on their way may be lost"
        );
    }
    // Its requests are here, and stay; `drain` would wait for a connection that may be gone.
    if let Err(error) = subscription.unsubscribe().await {
        tracing::debug!(%error, "the connection is closed, and the subscription with it");
    }
}

/// Waits until the server has processed everything that was sent, if it is there at all.
///
/// A flush says less: async-nats reports one while its own buffer may still hold something.
pub(super) async fn settled(client: &Client) -> bool {
    client.connection_state() == State::Connected
        && matches!(
            tokio::time::timeout(CONFIRM, roundtrip(client)).await,
            Ok(Some(()))
        )
}

/// Sends a message to ourselves: when it arrives, the server has processed everything before it, and everything that it
/// had sent is here. A flush alone only says that the bytes have left.
pub(super) async fn roundtrip(client: &Client) -> Option<()> {
    let inbox = client.new_inbox();
    let mut subscription = client.subscribe(inbox.clone()).await.ok()?;
    client.publish(inbox, "".into()).await.ok()?;
    subscription.next().await.map(drop)
}
