//! What several of the tests need.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::time::Duration;

use async_nats::jetstream::{self, kv};
use futures_util::StreamExt;

/// Long enough for a machine that does much else.
pub const LONG: Duration = Duration::from_secs(30);

pub async fn client(url: impl async_nats::ToServerAddrs) -> async_nats::Client {
    async_nats::connect(url).await.expect("a client connects")
}

/// There and back, through the server: what `flush` does not wait for.
pub async fn round_trip(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut subscription = client
        .subscribe(inbox.clone())
        .await
        .expect("the client lives");
    client
        .publish(inbox, "ping".into())
        .await
        .expect("the client lives");
    subscription.next().await.expect("the client lives");
}

pub async fn bucket(client: &async_nats::Client, name: &str, replicas: usize) -> kv::Store {
    let config = kv::Config {
        bucket: name.to_owned(),
        num_replicas: replicas,
        ..Default::default()
    };
    let js = jetstream::new(client.clone());
    let bucket = js.create_key_value(config).await;
    let bucket = bucket.expect("a bucket is made");
    // A replicated one is there before all servers know who takes its writes.
    until("a first write", async || {
        bucket.put("first", "".into()).await.is_ok()
    })
    .await;
    bucket
}

/// Comes back when the condition holds, and fails the test when it does not come to hold.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come about"));
}

/// Whether a process of this id is there and is more than an unclaimed exit status.
pub fn is_alive(pid: u32) -> bool {
    let asked = std::process::Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .expect("ps runs");
    let state = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}
