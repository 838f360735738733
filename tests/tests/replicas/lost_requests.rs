//! Requests that nobody answers: a cluster drops them without a word while a leader changes.

use async_nats::jetstream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{KvStore, Newer, ObjectStore, ReadLevel, StoreError, WatchEvent};
use nats_service_testkit::TestCluster;
use nats_service_tests::{Nats, soon, until};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The time limit of requests, as the connection has it by default.
const LIMIT: Duration = Duration::from_secs(10);

/// Requests of a reader that have one answer and no other sign of life.
const ASKS: [&str; 4] = [
    "STREAM.INFO.",
    "STREAM.MSG.GET.",
    "DIRECT.GET.",
    "CONSUMER.CREATE.",
];

/// JetStream, over which every other request of these gets lost, the first one of each subject to begin with.
async fn lossy(nats: &Nats, prefix: &str) -> jetstream::Context {
    let client = nats.client.clone();
    let asked = client.subscribe(format!("{prefix}.>")).await;
    let mut asked = asked.expect("a subscription");
    let own = format!("{prefix}.");
    let mut lost = BTreeSet::new();
    tokio::spawn(async move {
        while let Some(request) = asked.next().await {
            let asks = request.subject.strip_prefix(&own).expect("the prefix");
            let asks = asks.to_owned();
            if ASKS.iter().any(|it| asks.starts_with(it)) && !lost.remove(&asks) {
                lost.insert(asks);
                continue;
            }
            let reply = request.reply.expect("a request");
            let subject = format!("$JS.API.{asks}");
            let sent = client.publish_with_reply(subject, reply, request.payload);
            sent.await.expect("a connection");
        }
    });
    jetstream::with_prefix(nats.client.clone(), prefix)
}

/// Reads through a context of its own over which requests get lost, and is done before the limit of one request.
async fn reads<T>(
    nats: &Nats,
    what: &str,
    read: impl AsyncFnOnce(jetstream::Context) -> Result<T, StoreError>,
) -> T {
    let js = lossy(nats, &format!("lossy_{what}")).await;
    let began = Instant::now();
    let answer = read(js).await;
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(500),
        "{what}: nothing was lost"
    );
    assert!(took < LIMIT, "{what} took {took:?}");
    answer.unwrap_or_else(|error| panic!("{what}: {error}"))
}

#[tokio::test]
async fn a_read_whose_request_got_lost_asks_again_and_does_not_wait_for_its_limit() {
    let nats = &Nats::start().await;
    nats.kv_bucket("b").await;
    let store = KvStore::<u64>::bind(nats.js.clone(), "b").unwrap();
    let first = store.key("k").unwrap().put(&1).await.unwrap();
    let last = store.key("k").unwrap().put(&2).await.unwrap();
    let bucket = |js| KvStore::<u64>::bind(js, "b").unwrap();
    let key = |js| bucket(js).key("k").unwrap();

    let get = reads(nats, "get", async |js| key(js).get().await);
    let get_at = reads(nats, "get_at", async |js| key(js).get_at(first).await);
    let leader = reads(nats, "leader", async |js| {
        key(js).read(ReadLevel::Leader).await
    });
    let newer = reads(nats, "newer", async |js| key(js).get_if_newer(first).await);
    let many = reads(nats, "many", async |js| bucket(js).get_many(["k"]).await);
    let history = reads(nats, "history", async |js| key(js).history().await);
    let keys = reads(nats, "keys", async |js| {
        bucket(js).keys().await?.try_collect::<Vec<_>>().await
    });
    let status = reads(nats, "status", async |js| bucket(js).status().await);
    let watch = reads(nats, "watch", async |js| bucket(js).watch().await);
    let view = reads(nats, "view", async |js| bucket(js).view().await);
    let (get, get_at, leader, newer, many) = tokio::join!(get, get_at, leader, newer, many);
    assert_eq!(get.map(|it| it.into_value()), Some(2));
    assert_eq!(get_at.map(|it| it.into_value()), Some(1));
    assert_eq!(leader.map(|it| it.into_value()), Some(2));
    assert!(matches!(newer, Newer::Entry(entry) if entry.revision == last));
    assert_eq!(many.len(), 1);
    let (history, keys, status, mut watch, view) = tokio::join!(history, keys, status, watch, view);
    assert_eq!(history.len(), 2);
    assert_eq!(keys, ["k"]);
    assert_eq!(status.values, 2);
    // A consumer that was made and not heard of brings nothing twice.
    for expected in [Some(last), None] {
        let event = soon("an event", watch.next()).await;
        match event.expect("a watch goes on").expect("no error") {
            WatchEvent::Change(change) => assert_eq!(Some(change.revision), expected),
            WatchEvent::InitialDone => assert_eq!(expected, None),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(view.revision(), last);
}

#[tokio::test]
async fn a_download_whose_request_got_lost_asks_again() {
    let nats = &Nats::start().await;
    nats.object_bucket("o").await;
    let store = ObjectStore::<u64>::bind(nats.js.clone(), "o").unwrap();
    let object = store.object("one").unwrap();
    let bytes = vec![7; 300_000];
    object.put_reader(&bytes[..]).await.unwrap();
    let read = reads(nats, "bytes", async |js| {
        let store = ObjectStore::<u64>::bind(js, "o").unwrap();
        store.object("one").unwrap().bytes().await
    });
    assert_eq!(read.await.as_deref(), Some(&bytes[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_while_the_leader_stands_still_is_answered_by_the_next_one() {
    let cluster = TestCluster::start().await.unwrap();
    let js = jetstream::new(async_nats::connect(cluster.urls()).await.unwrap());
    let config = jetstream::kv::Config {
        bucket: "b".to_owned(),
        num_replicas: 3,
        ..Default::default()
    };
    until("a bucket", async || {
        js.create_key_value(config.clone()).await.is_ok()
    })
    .await;
    let leads = cluster.stream_leader("KV_b").await.unwrap();
    let options = async_nats::ConnectOptions::new().ignore_discovered_servers();
    let other = cluster.server((leads + 1) % 3).url();
    let client = options.connect(other).await.unwrap();
    // An election may take longer than the usual limit where the machine is busy.
    let js = jetstream::ContextBuilder::new()
        .timeout(3 * LIMIT)
        .build(client);
    let store = KvStore::<u64>::bind(js, "b").unwrap();
    let key = store.key("k").unwrap();
    key.put(&1).await.unwrap();

    cluster.server(leads).pause().await.unwrap();
    let began = Instant::now();
    let (history, watch, status) =
        tokio::join!(key.history(), async { store.watch().await }, store.status());
    println!("answered after {:?}", began.elapsed());
    assert_eq!(history.expect("a history").len(), 1);
    assert_eq!(status.expect("a status").values, 1);
    let first = soon("the value", watch.expect("a watch").next()).await;
    assert!(matches!(first, Some(Ok(WatchEvent::Change(change))) if change.key == "k"));
    cluster.server(leads).resume().await.unwrap();
}
