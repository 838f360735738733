//! What was evicted does not come back, whoever was on the way with it.

use super::{Act, Bank, Hand, Quote, RateError, Served, called, counted, eur, served};
use async_nats::jetstream;
use nats_service::{Server, nats_service};
use nats_service_testkit::TestCluster;
use nats_service_tests::{Nats, connect, desk, soon, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[tokio::test]
async fn what_was_begun_before_an_eviction_is_not_stored_after_it_and_given_to_nobody_who_came_after_it()
 {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    let entry = client.stores().unwrap().rate().at("eur").unwrap();
    // Once with a key that was never written, once with one that was evicted before.
    for round in 0..2 {
        bank.then([Act::Hold, Act::Hold]);
        let before = bank.calls();
        let old = tokio::spawn(client.rate(eur()).into_future());
        called(bank, before + 1).await;
        client.forget(eur()).await.unwrap();
        let new = tokio::spawn(client.rate(eur()).into_future());
        called(bank, before + 2).await;
        bank.gate.add_permits(2);
        assert_eq!(old.await.unwrap().unwrap().call, before + 1);
        let new = new.await.unwrap().unwrap();
        assert_eq!(new.call, before + 2);
        until(
            "the newer answer is stored, and the older one is not",
            async || {
                let stored = entry.get().await.unwrap().map(|entry| entry.into_value());
                assert!(
                    stored.as_ref().is_none_or(|stored| *stored == new),
                    "{stored:?}"
                );
                stored.is_some() && counted(&nats, "rate", "outdated").await == round + 1
            },
        )
        .await;
        client.forget(eur()).await.unwrap();
    }
}

/// A table with one row, behind a cache, in an instance of its own or several.
#[nats_service(version = "1.0.0", timeout = "20s")]
trait Rows {
    #[kv_cache(bucket = "rows", key = "row", ttl = "1h", shared_key = true)]
    async fn row(&self) -> u64;

    #[kv_cache(
        bucket = "claimed",
        key = "row",
        ttl = "1h",
        shared_key = true,
        single_flight = "cluster"
    )]
    async fn claimed(&self) -> u64;

    /// Changes the row, and says so before it replies.
    #[kv_evict(bucket = "rows", key = "row", write = "before_reply")]
    #[kv_evict(bucket = "claimed", key = "row", write = "before_reply")]
    async fn change(&self) -> u64;
}

#[derive(Clone, Default)]
struct Table {
    row: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl Table {
    /// What was read is old by the time it is answered.
    async fn read(&self) -> u64 {
        let row = self.row.load(SeqCst) as u64;
        let read = self.reads.fetch_add(1, SeqCst) as u64;
        tokio::time::sleep(Duration::from_millis(read % 7)).await;
        row
    }
}

impl Rows for Table {
    async fn row(&self) -> u64 {
        self.read().await
    }
    async fn claimed(&self) -> u64 {
        self.read().await
    }
    async fn change(&self) -> u64 {
        self.row.fetch_add(1, SeqCst) as u64 + 1
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_asks_after_a_change_is_given_what_was_before_it() {
    let nats = Nats::start().await;
    let table = Table::default();
    let mut instances = Vec::new();
    for _ in 0..2 {
        let (own, js) = connect(&nats.server).await;
        let server = Server::new(own).with_jetstream(js);
        let server = server.serve(RowsServer::new(table.clone()));
        instances.push(server.start().await.unwrap());
    }
    let client = RowsClient::new(nats.client.clone());
    // The latest change whose reply has come.
    let told = Arc::new(AtomicUsize::new(0));
    let end = Instant::now() + Duration::from_secs(3);
    let mut readers = JoinSet::new();
    for reader in 0..16 {
        let (client, told) = (client.clone(), told.clone());
        readers.spawn(async move {
            let mut read = 0;
            while Instant::now() < end {
                let least = told.load(SeqCst) as u64;
                let row = if reader % 2 == 0 {
                    client.row().await.unwrap()
                } else {
                    client.claimed().await.unwrap()
                };
                assert!(row >= least, "{row} was given after {least} was told of");
                read += 1;
            }
            read
        });
    }
    let mut changes = 0;
    while Instant::now() < end {
        let row = client.change().await.unwrap();
        told.fetch_max(row as usize, SeqCst);
        changes += 1;
        tokio::time::sleep(Duration::from_millis(changes % 11)).await;
    }
    let mut reads = 0;
    while let Some(read) = soon("a reader", readers.join_next()).await {
        reads += read.unwrap();
    }
    let handled = table.reads.load(SeqCst);
    assert!(
        changes > 20 && reads > handled,
        "{changes} changes, {reads} reads, {handled} handled"
    );
}

#[nats_service(version = "1.0.0", timeout = "20s")]
trait Replicated {
    #[kv_cache(bucket = "three", key = "<currency>", ttl = "1h", replicas = 3)]
    async fn rate(&self, currency: String) -> Result<Quote, RateError>;

    #[kv_evict(bucket = "three", key = "<currency>", write = "before_reply")]
    async fn forget(&self, currency: String) -> Result<(), RateError>;
}

impl Replicated for Hand {
    async fn rate(&self, currency: String) -> Result<Quote, RateError> {
        self.0.sure(currency).await
    }
    async fn forget(&self, _currency: String) -> Result<(), RateError> {
        Ok(())
    }
}

#[tokio::test]
async fn on_a_replicated_bucket_an_evicted_answer_is_not_stored_either() {
    let cluster = TestCluster::start().await.unwrap();
    let nats = async_nats::connect(cluster.server(0).url()).await.unwrap();
    let js = jetstream::new(nats.clone());
    let bank = Bank::new([Act::Hold]);
    let server = Server::new(nats.clone()).with_jetstream(js.clone());
    let server = server.serve(ReplicatedServer::new(Hand(bank.clone())));
    let running = soon("a start", server.start()).await.unwrap();
    let client = ReplicatedClient::new(nats.clone()).with_jetstream(js);
    let old = tokio::spawn(client.rate(eur()).into_future());
    called(&bank, 1).await;
    client.forget(eur()).await.unwrap();
    bank.gate.add_permits(1);
    assert_eq!(old.await.unwrap().unwrap().call, 1);
    until("the old answer is refused", async || {
        let stats = desk::stats(&nats, "replicated", "rate").await;
        stats["data"]["cache"]["outdated"] == 1
    })
    .await;
    assert_eq!(client.rate(eur()).await.unwrap().call, 2);
    let entry = client.stores().unwrap().rate().at("eur").unwrap();
    until("the new one is stored", async || {
        entry.get().await.unwrap().is_some()
    })
    .await;
    running
        .shutdown(Duration::from_secs(20))
        .await
        .expect("nothing is left");
}
