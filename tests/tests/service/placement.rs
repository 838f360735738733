//! What a deployment decides over the contract's head: prefix and queue groups.

use nats_service::{Server, StartError, nats_service};
use nats_service_tests::desk::ask;
use nats_service_tests::{Nats, processed, until};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[nats_service(queue_group = "crew")]
trait Bell {
    async fn ring(&self) -> u32;

    #[endpoint(queue_group = "watch")]
    async fn watch(&self) -> u32;

    #[endpoint(queue_group = false)]
    async fn all(&self) -> u32;
}

#[derive(Clone, Default)]
struct Counts(Arc<[AtomicU32; 3]>);

impl Counts {
    fn count(&self, which: usize) -> u32 {
        self.0[which].fetch_add(1, Relaxed) + 1
    }

    fn read(&self) -> [u32; 3] {
        [0, 1, 2].map(|which| self.0[which].load(Relaxed))
    }
}

impl Bell for Counts {
    async fn ring(&self) -> u32 {
        self.count(0)
    }

    async fn watch(&self) -> u32 {
        self.count(1)
    }

    async fn all(&self) -> u32 {
        self.count(2)
    }
}

async fn info(nats: &Nats) -> Vec<(String, String)> {
    let info = ask(&nats.client, "$SRV.INFO.bell", "").await;
    let info: Value = serde_json::from_slice(&info.payload).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let endpoints = info["endpoints"].as_array().unwrap().iter();
    endpoints
        .map(|one| (text(&one["subject"]), text(&one["queue_group"])))
        .collect()
}

fn pairs(pairs: [(&str, &str); 3]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

/// Rings every bell ten times without waiting for answers, and waits until so many have been heard.
async fn ring(nats: &Nats, prefix: &str, counts: &Counts, expected: [u32; 3]) {
    for _ in 0..10 {
        for bell in ["ring", "watch", "all"] {
            let subject = format!("{prefix}bell.{bell}");
            nats.client.publish(subject, "".into()).await.unwrap();
        }
    }
    processed(&nats.client).await;
    until("the bells are heard", async || counts.read() == expected).await;
}

#[tokio::test]
async fn a_queue_group_is_set_or_switched_off_for_the_service_and_for_the_endpoint() {
    let nats = Nats::start().await;
    let counts = Counts::default();
    let server = || Server::new(nats.client.clone()).serve(BellServer::new(counts.clone()));
    let _two = (
        server().start().await.unwrap(),
        server().start().await.unwrap(),
    );
    assert_eq!(
        info(&nats).await,
        pairs([
            ("bell.ring", "crew"),
            ("bell.watch", "watch"),
            ("bell.all", "")
        ])
    );
    ring(&nats, "", &counts, [10, 10, 20]).await;
}

#[tokio::test]
async fn a_server_replaces_the_services_queue_group_and_not_the_endpoints_own() {
    let nats = Nats::start().await;
    let counts = Counts::default();
    let server = || Server::new(nats.client.clone()).serve(BellServer::new(counts.clone()));
    let _crew = server().start().await.unwrap();
    let _shadow = server().queue_group("shadow").start().await.unwrap();
    // Both groups get every ring; those of an endpoint's own group are still divided.
    ring(&nats, "", &counts, [20, 10, 20]).await;
}

#[tokio::test]
async fn a_server_switches_the_services_queue_group_off() {
    let nats = Nats::start().await;
    let counts = Counts::default();
    let server = Server::new(nats.client.clone()).serve(BellServer::new(counts.clone()));
    let _one = server.no_queue_group().start().await.unwrap();
    assert_eq!(
        info(&nats).await,
        pairs([("bell.ring", ""), ("bell.watch", "watch"), ("bell.all", "")])
    );
}

#[tokio::test]
async fn a_prefix_moves_the_subjects_and_leaves_discovery() {
    let nats = Nats::start().await;
    let counts = Counts::default();
    let server = Server::new(nats.client.clone()).serve(BellServer::new(counts.clone()));
    let _running = server.prefix("staging.eu").start().await.unwrap();
    assert_eq!(
        info(&nats).await[0],
        ("staging.eu.bell.ring".to_owned(), "crew".to_owned())
    );
    ring(&nats, "staging.eu.", &counts, [10, 10, 10]).await;
    // Nobody is at the old place.
    let other = nats.client.request("bell.ring", "".into()).await;
    assert!(other.is_err(), "{other:?}");
}

#[tokio::test]
async fn a_prefix_or_a_queue_group_that_is_no_name_is_refused_at_the_start() {
    let nats = Nats::start().await;
    let server = || Server::new(nats.client.clone()).serve(BellServer::new(Counts::default()));
    for prefix in ["a b", "a..b", ".a", "a.", "a.*", ">", "$SRV", "_INBOX", "é"] {
        let refused = server().prefix(prefix).start().await;
        assert!(
            matches!(refused, Err(StartError::Prefix { .. })),
            "{prefix}: {refused:?}"
        );
    }
    for group in ["", "a b", ">", "a\r\nb"] {
        let refused = server().queue_group(group).start().await;
        assert!(
            matches!(refused, Err(StartError::QueueGroup { .. })),
            "{group}: {refused:?}"
        );
    }
}
