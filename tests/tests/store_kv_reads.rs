//! What reads promise, against one real server and against a cluster of three.

use async_nats::jetstream;
use bytes::Bytes;
use nats_service::{KvKey, KvStore, Newer, ReadLevel, StoreError};
use nats_service_testkit::TestCluster;
use nats_service_tests::{Nats, PATIENCE, soon, too_old, until};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const LEVELS: [ReadLevel; 3] = [ReadLevel::Fast, ReadLevel::Leader, ReadLevel::Confirmed];

async fn bucket(nats: &Nats) -> KvStore<u32> {
    nats.kv_bucket("b").await;
    KvStore::bind(nats.js.clone(), "b").expect("a store")
}

async fn without_direct_get(nats: &Nats) {
    let mut stream = nats.js.get_stream("KV_b").await.expect("the stream");
    let mut config = stream.info().await.expect("it").config.clone();
    config.allow_direct = false;
    nats.js.update_stream(config).await.expect("an update");
}

#[tokio::test]
async fn every_level_finds_what_is_there_and_nothing_else() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = store.key("a").unwrap();
    for level in LEVELS {
        assert!(key.read(level).await.unwrap().is_none());
    }
    let revision = key.put(&1).await.unwrap();
    for level in LEVELS.into_iter().chain([ReadLevel::AtLeast(revision)]) {
        let entry = key.read(level).await.unwrap().unwrap();
        assert_eq!((entry.revision, *entry.value()), (revision, 1));
    }
    let deleted = key.delete().await.unwrap();
    for level in LEVELS.into_iter().chain([ReadLevel::AtLeast(deleted)]) {
        assert!(key.read(level).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn at_least_waits_for_the_revision_and_says_when_it_does_not_come() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let (a, b) = (store.key("a").unwrap(), store.key("b").unwrap());
    let revision = a.put(&1).await.unwrap();
    // Another key's revision is one of the bucket, too: also for a key that is not there.
    let level = ReadLevel::AtLeast(revision);
    assert!(b.read(level).await.unwrap().is_none());

    let patience = Duration::from_millis(200);
    let future = ReadLevel::AtLeast(revision + 1);
    match a.read_within(future, patience).await {
        Err(StoreError::NotVisible {
            revision: missing,
            newest,
            waited,
        }) => {
            assert_eq!((missing, newest), (revision + 1, revision));
            assert!(waited >= patience);
        }
        other => panic!("{other:?}"),
    }
    let sent = || nats.client.statistics().out_messages.load(Relaxed);
    let before = sent();
    let (read, written) = tokio::join!(a.read(future), async {
        until("it was asked for, in vain, and again", async || {
            sent() > before + 1
        })
        .await;
        a.put(&2).await
    });
    assert_eq!(read.unwrap().unwrap().revision, written.unwrap());
}

#[tokio::test]
async fn a_confirmed_read_leaves_one_mark_that_no_listing_shows() {
    if too_old(1).await {
        return;
    }
    use futures_util::TryStreamExt as _;
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = store.key("a").unwrap();
    key.put(&1).await.unwrap();
    for _ in 0..20 {
        key.read(ReadLevel::Confirmed).await.unwrap();
    }
    assert_eq!(nats.messages("KV_b", "$KV.b.>").await, 2);
    let keys: Vec<String> = store.keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys, ["a"]);
    assert!(store.key("_kv.confirmed").is_err());
}

#[tokio::test]
async fn without_direct_get_reads_ask_the_leader_and_a_confirmed_one_says_what_it_needs() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    without_direct_get(&nats).await;
    let key = store.key("a").unwrap();
    let revision = key.put(&1).await.unwrap();
    for level in [
        ReadLevel::Fast,
        ReadLevel::Leader,
        ReadLevel::AtLeast(revision),
    ] {
        assert_eq!(key.read(level).await.unwrap().unwrap().revision, revision);
    }
    match key.read(ReadLevel::Confirmed).await {
        Err(StoreError::Unsupported { needs, .. }) => assert!(needs.contains("allow_direct")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        key.get_if_newer(revision).await,
        Ok(Newer::Unchanged)
    ));
    assert!(matches!(key.get_if_newer(0).await, Ok(Newer::Entry(_))));
}

#[tokio::test]
async fn only_what_is_newer_is_sent() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = store.key("a").unwrap();
    assert!(matches!(key.get_if_newer(0).await, Ok(Newer::Gone)));
    let first = key.put(&1).await.unwrap();
    store.key("b").unwrap().put(&1).await.unwrap();
    let newer = |known| {
        let key = key.clone();
        async move { key.get_if_newer(known).await.unwrap() }
    };
    assert!(matches!(newer(first).await, Newer::Unchanged));
    assert!(matches!(newer(first + 9).await, Newer::Unchanged));
    assert!(matches!(newer(0).await, Newer::Entry(entry) if entry.revision == first));
    let second = key.put(&2).await.unwrap();
    assert!(matches!(newer(first).await, Newer::Entry(entry) if entry.revision == second));
    let deleted = key.delete().await.unwrap();
    assert!(matches!(newer(second).await, Newer::Gone));
    assert!(matches!(newer(deleted).await, Newer::Unchanged));
}

/// A replicated bucket with one key in it.
async fn replicated(cluster: &TestCluster) {
    let client = async_nats::connect(cluster.urls()).await.expect("a client");
    let js = jetstream::new(client);
    let config = jetstream::kv::Config {
        bucket: "b".to_owned(),
        history: 2,
        num_replicas: 3,
        ..Default::default()
    };
    until("a bucket", async || {
        js.create_key_value(config.clone()).await.is_ok()
    })
    .await;
    until("the first write", async || {
        js.publish("$KV.b.a", Bytes::from_static(b"0"))
            .await
            .expect("a connection")
            .await
            .is_ok()
    })
    .await;
}

/// The key as seen over a connection to one server only.
async fn through(cluster: &TestCluster, server: usize) -> KvKey<u32> {
    connected(cluster, server).await.1
}

/// The same, and the connection.
async fn connected(cluster: &TestCluster, server: usize) -> (async_nats::Client, KvKey<u32>) {
    let (client, store) = store_through(cluster, server).await;
    (client, store.key("a").expect("a key"))
}

async fn store_through(cluster: &TestCluster, server: usize) -> (async_nats::Client, KvStore<u32>) {
    let options = async_nats::ConnectOptions::new()
        .ignore_discovered_servers()
        .request_timeout(Some(Duration::from_secs(2)));
    let client = options.connect(cluster.server(server).url()).await;
    let client = client.expect("a connection");
    let mut js = jetstream::new(client.clone());
    js.set_timeout(Duration::from_secs(2));
    (client, KvStore::bind(js, "b").expect("a store"))
}

/// One that writes and one that reads, on different servers: the reader's replica is often behind.
async fn writer_and_reader() -> (TestCluster, KvKey<u32>, KvStore<u32>) {
    let cluster = TestCluster::start().await.expect("a cluster");
    replicated(&cluster).await;
    let leader = cluster.stream_leader("KV_b").await.expect("a leader");
    let writer = through(&cluster, leader).await;
    let (_, reader) = store_through(&cluster, (leader + 1) % 3).await;
    (cluster, writer, reader)
}

#[tokio::test]
async fn nobody_misses_a_write_of_its_own_on_a_replicated_bucket() {
    if too_old(1).await {
        return;
    }
    let (_cluster, writer, store) = writer_and_reader().await;
    let reader = store.key("a").unwrap();
    let mut stale = 0;
    for value in 0..300 {
        let revision = writer.put(&value).await.unwrap();
        let fast = reader.get().await.unwrap().unwrap();
        stale += usize::from(fast.revision < revision);
        let level = match value % 3 {
            0 => ReadLevel::AtLeast(revision),
            1 => ReadLevel::Leader,
            _ => ReadLevel::Confirmed,
        };
        let entry = reader.read(level).await.unwrap().unwrap();
        assert_eq!(
            (entry.revision, *entry.value()),
            (revision, value),
            "{level:?}"
        );
        match reader.update(&0, revision - 1).await {
            Err(StoreError::Conflict { current, .. }) => assert_eq!(current, Some(revision)),
            other => panic!("{other:?}"),
        }
    }
    println!("{stale} of 300 fast reads were stale");
}

#[tokio::test]
async fn many_keys_promise_what_one_does() {
    if too_old(1).await {
        return;
    }
    let (_cluster, writer, store) = writer_and_reader().await;
    let mut stale = 0;
    for value in 0..300 {
        let revision = writer.put(&value).await.unwrap();
        let fast = store.get_many(["a", "none"]).await.unwrap();
        stale += usize::from(fast["a"].revision < revision);
        let level = match value % 3 {
            0 => ReadLevel::AtLeast(revision),
            1 => ReadLevel::Leader,
            _ => ReadLevel::Confirmed,
        };
        let many = store.get_many(["a", "none"]).level(level);
        let snapshot = store.get_many(["a", "none"]).level(level).snapshot();
        let all = store.all();
        let (many, all, snapshot) = tokio::join!(many, all.read_all(level), snapshot);
        for found in [many.unwrap(), all.unwrap(), snapshot.unwrap().entries] {
            assert_eq!(found.len(), 1);
            let entry = &found["a"];
            assert_eq!(
                (entry.revision, *entry.value()),
                (revision, value),
                "{level:?}"
            );
        }
        // Nobody has these, and that is no older than the others.
        let none = store.get_many(["none", "nothing"]).level(level).await;
        assert!(none.unwrap().is_empty());
        let none = store.under("none").unwrap();
        assert!(none.read_all(level).await.unwrap().is_empty());
        let none = store.get_many(["none", "nothing"]).level(level).snapshot();
        assert!(none.await.unwrap().entries.is_empty());
    }
    println!("{stale} of 300 fast reads were stale");
    let future = ReadLevel::AtLeast(1_000_000);
    for refused in [
        store.get_many(["a"]).level(future).await,
        store.get_many(["none"]).level(future).await,
        store.all().read_all(future).await,
    ] {
        match refused {
            Err(StoreError::NotVisible { revision, .. }) => assert_eq!(revision, 1_000_000),
            other => panic!("{other:?}"),
        }
    }
}

/// More keys than one answer has, and a bucket without direct get: the leader tells.
#[tokio::test]
async fn many_keys_come_from_the_leader_where_no_answer_proves_anything() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let mut revision = 0;
    for i in 0..1500 {
        let key = store.key(format!("k.{i}")).unwrap();
        revision = key.put(&i).await.unwrap();
    }
    let all = store.all();
    let levels = [ReadLevel::AtLeast(revision), ReadLevel::Leader];
    for level in levels.into_iter().chain([ReadLevel::Confirmed]) {
        assert_eq!(all.read_all(level).await.unwrap().len(), 1500, "{level:?}");
    }
    // The mark of the confirmed reads counts as one, too.
    store.key("k.7").unwrap().delete().await.unwrap();
    without_direct_get(&nats).await;
    let store = KvStore::<u32>::bind(nats.js.clone(), "b").unwrap();
    let all = store.all();
    for level in levels {
        assert_eq!(all.read_all(level).await.unwrap().len(), 1499, "{level:?}");
        let some = store.get_many(["k.7", "k.8"]).level(level);
        assert_eq!(some.await.unwrap().len(), 1, "{level:?}");
    }
    for refused in [
        all.read_all(ReadLevel::Confirmed).await,
        store.get_many(["k.8"]).level(ReadLevel::Confirmed).await,
    ] {
        assert!(matches!(refused, Err(StoreError::Unsupported { .. })));
    }
}

#[tokio::test]
async fn a_leader_that_has_lost_the_others_answers_reads_but_confirms_none() {
    if too_old(1).await {
        return;
    }
    let cluster = TestCluster::start().await.unwrap();
    replicated(&cluster).await;
    let leader = cluster.stream_leader("KV_b").await.unwrap();
    let key = through(&cluster, leader).await;
    let revision = key.put(&1).await.unwrap();
    for other in [leader + 1, leader + 2] {
        cluster.server(other % 3).pause().await.unwrap();
    }
    let old = key.read(ReadLevel::Leader).await.unwrap().unwrap();
    assert_eq!(old.revision, revision, "it still believes that it leads");
    let patience = Duration::from_secs(2);
    match key.read_within(ReadLevel::Confirmed, patience).await {
        Err(StoreError::Timeout | StoreError::Unavailable { .. }) => {}
        other => panic!("{other:?}"),
    }
    for other in [leader + 1, leader + 2] {
        cluster.server(other % 3).resume().await.unwrap();
    }
    until("a confirmed read", async || {
        let read = key.read(ReadLevel::Confirmed).await;
        read.is_ok_and(|entry| entry.is_some_and(|entry| *entry.value() == 1))
    })
    .await;
}

#[tokio::test]
async fn a_confirmed_read_through_a_leader_that_slept_never_shows_the_past() {
    if too_old(1).await {
        return;
    }
    let cluster = TestCluster::start().await.unwrap();
    replicated(&cluster).await;
    let mut past = 0;
    for value in 1..=3 {
        let old = cluster.stream_leader("KV_b").await.unwrap();
        let (connection, sleeper) = connected(&cluster, old).await;
        sleeper.get().await.unwrap();
        let awake = through(&cluster, (old + 1) % 3).await;
        cluster.server(old).pause().await.unwrap();
        let mut revision = 0;
        until("a write through the new leader", async || {
            match awake.put(&value).await {
                Ok(written) => {
                    revision = written;
                    true
                }
                Err(_) => false,
            }
        })
        .await;
        // They wait in its socket, and are the first that it sees when it wakes up.
        let sent = || connection.statistics().out_messages.load(Relaxed);
        let before = sent();
        let reads = async {
            tokio::join!(
                sleeper.read_within(ReadLevel::Leader, PATIENCE),
                sleeper.read_within(ReadLevel::Confirmed, PATIENCE),
            )
        };
        let wake = async {
            until("both are asked for", async || sent() > before + 1).await;
            connection.flush().await.unwrap();
            cluster.server(old).resume().await.unwrap();
        };
        let since = Instant::now();
        let ((leader, confirmed), ()) =
            soon("the reads", async { tokio::join!(reads, wake) }).await;
        if let Ok(Some(entry)) = leader {
            past += usize::from(entry.revision < revision);
        }
        if let Ok(entry) = confirmed {
            let entry = entry.expect("an entry");
            assert!(entry.revision >= revision, "after {:?}", since.elapsed());
        }
        cluster.wait_ready().await.unwrap();
    }
    println!("{past} of 3 reads from a leader that had slept showed the past");
}

#[tokio::test]
async fn a_leader_that_is_cut_off_shows_the_past_and_confirms_nothing() {
    if too_old(1).await {
        return;
    }
    let cluster = TestCluster::builder().partitions(true).start().await;
    let cluster = cluster.unwrap();
    replicated(&cluster).await;
    let old = cluster.stream_leader("KV_b").await.unwrap();
    let inside = through(&cluster, old).await;
    let outside = through(&cluster, (old + 1) % 3).await;
    let first = inside.put(&1).await.unwrap();
    cluster.cut_off(old).await.unwrap();
    let mut second = 0;
    until("a write through the new leader", async || {
        match outside.put(&2).await {
            Ok(written) => {
                second = written;
                true
            }
            Err(_) => false,
        }
    })
    .await;
    // The old leader knows of nothing, as long as it believes in itself.
    if let Ok(entry) = inside.read(ReadLevel::Leader).await {
        assert_eq!(entry.unwrap().revision, first);
        println!("a leader that was cut off showed the past");
    }
    assert_eq!(inside.get().await.unwrap().unwrap().revision, first);
    let patience = Duration::from_secs(3);
    match inside.read_within(ReadLevel::Confirmed, patience).await {
        Err(StoreError::Timeout | StoreError::Unavailable { .. }) => {}
        other => panic!("{other:?}"),
    }
    match inside
        .read_within(ReadLevel::AtLeast(second), patience)
        .await
    {
        Err(
            StoreError::NotVisible { .. } | StoreError::Timeout | StoreError::Unavailable { .. },
        ) => {}
        other => panic!("{other:?}"),
    }
    let confirmed = soon("a read", outside.read(ReadLevel::Confirmed)).await;
    assert_eq!(confirmed.unwrap().unwrap().revision, second);
    cluster.rejoin(old).await.unwrap();
    until("it has heard", async || {
        let read = inside.read(ReadLevel::AtLeast(second)).await;
        read.is_ok_and(|entry| entry.is_some_and(|entry| *entry.value() == 2))
    })
    .await;
}
