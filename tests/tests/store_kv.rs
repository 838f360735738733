//! Typed key-value buckets, against a real server.

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use nats_service::{Codec, KvStore, Operation, StoreError, Watch, WatchEvent};
use nats_service_testkit::{Proxy, TestCluster};
use nats_service_tests::{Nats, soon, until};

async fn bucket(nats: &Nats) -> KvStore<u32> {
    nats.kv_bucket("b").await;
    KvStore::bind(nats.js.clone(), "b").expect("a store")
}

/// Puts bytes past the typed store.
async fn put_raw(nats: &Nats, key: &str, bytes: &'static [u8]) -> u64 {
    let subject = format!("$KV.b.{key}");
    let ack = nats.js.publish(subject, Bytes::from_static(bytes)).await;
    ack.unwrap().await.unwrap().sequence
}

/// The next event, in short: `key=value`, `key-` for a deletion, `key--` for a purge, `.` for the end of what was there.
async fn next(watch: &mut Watch<u32>) -> String {
    let event = soon("the next change", watch.next()).await;
    match event.expect("a watch does not end") {
        Ok(WatchEvent::InitialDone) => ".".to_owned(),
        Ok(WatchEvent::Change(change)) => match change.operation {
            Operation::Put(value) => format!("{}={value}", change.key),
            Operation::Delete => format!("{}-", change.key),
            Operation::Purge => format!("{}--", change.key),
            other => panic!("{other:?}"),
        },
        Ok(WatchEvent::Reset) => "reset".to_owned(),
        Ok(other) => panic!("{other:?}"),
        Err(error) => format!("! {error}"),
    }
}

async fn take(watch: &mut Watch<u32>, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(next(watch).await);
    }
    events
}

#[tokio::test]
async fn a_value_comes_back_with_its_revision_and_its_codec() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = store.key("user.abc").unwrap();
    assert!(key.get().await.unwrap().is_none());
    let revision = key.put(&7).await.unwrap();
    let entry = key.get().await.unwrap().unwrap();
    assert_eq!(
        (entry.key(), *entry.value(), entry.revision),
        ("user.abc", 7, revision)
    );
    assert_eq!(
        entry.headers.get("Content-Type").unwrap().as_str(),
        "application/json"
    );
    assert_eq!(entry.headers.len(), 1, "{:?}", entry.headers);

    // Another codec: told by the entry, whatever the reader's own is.
    let packed = store.clone().with_codec(Codec::MessagePack);
    packed.key("user.abc").unwrap().put(&8).await.unwrap();
    assert_eq!(key.get().await.unwrap().unwrap().into_value(), 8);
}

#[tokio::test]
async fn a_deleted_key_is_none_and_can_be_created_again_as_can_a_purged_one() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = store.key("a").unwrap();
    key.create(&1).await.unwrap();
    key.delete().await.unwrap();
    assert!(key.get().await.unwrap().is_none());
    key.create(&2).await.unwrap();
    assert_eq!(key.get().await.unwrap().unwrap().into_value(), 2);
    key.purge().await.unwrap();
    assert!(key.get().await.unwrap().is_none());
    let revision = key.create(&3).await.unwrap();
    match key.create(&4).await {
        Err(StoreError::Conflict {
            expected: 0,
            current,
            ..
        }) => assert_eq!(current, Some(revision)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_by_a_server_that_lacks_the_expected_revision_leaves_the_outcome_open() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = store.key("a").unwrap();
    let first = key.put(&1).await.unwrap();
    // As if another server had taken writes that this one has not.
    let expected = first + 5;
    for refused in [key.update(&2, expected).await, key.purge_if(expected).await] {
        match refused {
            Err(StoreError::Behind {
                key,
                expected: told,
                current,
            }) => {
                assert_eq!((key.as_str(), told, current), ("a", expected, first));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_conflict_tells_the_current_revision() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = store.key("a").unwrap();
    let first = key.put(&1).await.unwrap();
    store.key("b").unwrap().put(&1).await.unwrap();
    let second = key.update(&2, first).await.unwrap();
    for refused in [key.update(&3, first).await, key.delete_if(first).await] {
        match refused {
            Err(StoreError::Conflict {
                key,
                expected,
                current,
            }) => assert_eq!(
                (key.as_str(), expected, current),
                ("a", first, Some(second))
            ),
            other => panic!("{other:?}"),
        }
    }
    key.delete_if(second).await.unwrap();
}

#[tokio::test]
async fn a_revision_is_found_only_under_its_own_key() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let (a, b) = (store.key("a").unwrap(), store.key("b").unwrap());
    let of_a = a.put(&1).await.unwrap();
    a.put(&2).await.unwrap();
    let deleted = a.delete().await.unwrap();
    assert_eq!(a.get_at(of_a).await.unwrap().unwrap().into_value(), 1);
    for (key, revision) in [(&b, of_a), (&a, deleted), (&a, 99), (&a, 0)] {
        assert!(key.get_at(revision).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_history_is_oldest_first_and_ends_on_an_empty_bucket_too() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = store.key("a").unwrap();
    assert!(soon("the end", key.history()).await.unwrap().is_empty());
    key.put(&1).await.unwrap();
    key.put(&2).await.unwrap();
    store.key("b").unwrap().put(&9).await.unwrap();
    put_raw(&nats, "a", b"?").await;
    key.delete().await.unwrap();
    let history = soon("the end", key.history()).await.unwrap();
    let revisions: Vec<u64> = history.iter().map(|change| change.revision).collect();
    assert_eq!(revisions, [1, 2, 4, 5]);
    assert_eq!(history[0].value(), Some(&1));
    assert!(matches!(history[2].operation, Operation::Unreadable(_)));
    assert!(matches!(history[3].operation, Operation::Delete));
    assert_eq!(history[3].delta, 0);
    until("no consumer is left", async || {
        nats.consumers("KV_b").await == 0
    })
    .await;
}

#[tokio::test]
async fn a_roll_back_writes_the_old_bytes_as_a_new_revision() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = store.key("a").unwrap();
    let good = key.put(&1).await.unwrap();
    let bad = put_raw(&nats, "a", b"?").await;
    assert_eq!(key.roll_back(good).await.unwrap(), bad + 1);
    assert_eq!(key.get().await.unwrap().unwrap().into_value(), 1);
    let deleted = key.delete().await.unwrap();
    for gone in [deleted, 77] {
        match key.roll_back(gone).await {
            Err(StoreError::RevisionNotFound { revision, .. }) => assert_eq!(revision, gone),
            other => panic!("{other:?}"),
        }
    }
    key.roll_back(good).await.unwrap();
    assert_eq!(key.get().await.unwrap().unwrap().into_value(), 1);
}

#[tokio::test]
async fn an_undecodable_entry_costs_only_itself() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    store.key("a").unwrap().put(&1).await.unwrap();
    let bad = put_raw(&nats, "b", b"no number").await;
    store.key("c").unwrap().put(&3).await.unwrap();

    match store.key("b").unwrap().get().await {
        Err(StoreError::Undecodable { key, revision, .. }) => {
            assert_eq!((key.as_str(), revision), ("b", bad));
        }
        other => panic!("{other:?}"),
    }
    let entries: Vec<_> = store.entries().await.unwrap().collect().await;
    let values: Vec<_> = entries
        .iter()
        .map(|e| e.as_ref().ok().map(|e| *e.value()))
        .collect();
    assert_eq!(values, [Some(1), None, Some(3)]);
    let mut watch = store.watch().await.unwrap();
    let events = take(&mut watch, 4).await;
    assert_eq!((events[0].as_str(), events[2].as_str()), ("a=1", "c=3"));
    assert!(events[1].starts_with("! `b` at revision 2"), "{events:?}");
    assert_eq!(events[3], ".");
}

#[tokio::test]
async fn the_initial_marker_comes_once_also_on_an_empty_bucket() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let mut empty = store.watch().await.unwrap();
    assert_eq!(next(&mut empty).await, ".");
    store.key("a").unwrap().put(&1).await.unwrap();
    store.key("a").unwrap().put(&2).await.unwrap();
    assert_eq!(take(&mut empty, 2).await, ["a=1", "a=2"]);

    let mut all = store.watch().await.unwrap();
    assert_eq!(take(&mut all, 2).await, ["a=2", "."]);
    let mut history = store.watch().include_history().await.unwrap();
    assert_eq!(take(&mut history, 3).await, ["a=1", "a=2", "."]);
    let mut updates = store.watch().updates_only().await.unwrap();
    assert_eq!(next(&mut updates).await, ".");
    let mut resumed = store.watch().from_revision(2).await.unwrap();
    assert_eq!(take(&mut resumed, 2).await, ["a=2", "."]);
    let mut ahead = store.watch().from_revision(4).await.unwrap();
    assert_eq!(next(&mut ahead).await, ".");

    store.key("b").unwrap().put(&3).await.unwrap();
    store.key("a").unwrap().delete().await.unwrap();
    store.key("b").unwrap().purge().await.unwrap();
    for watch in [
        &mut empty,
        &mut all,
        &mut history,
        &mut updates,
        &mut resumed,
    ] {
        assert_eq!(take(watch, 3).await, ["b=3", "a-", "b--"]);
    }
    assert_eq!(take(&mut ahead, 2).await, ["a-", "b--"]);
    let mut values = store
        .watch()
        .include_history()
        .ignore_deletes()
        .await
        .unwrap();
    assert_eq!(take(&mut values, 3).await, ["a=1", "a=2", "."]);
}

#[tokio::test]
async fn a_dropped_watch_leaves_no_consumer() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let mut watch = store.watch().await.unwrap();
    assert_eq!(next(&mut watch).await, ".");
    assert_eq!(nats.consumers("KV_b").await, 1);
    drop(watch);
    until("the consumer is deleted", async || {
        nats.consumers("KV_b").await == 0
    })
    .await;
}

#[tokio::test]
async fn a_watch_resumes_after_a_restart_and_neither_replays_nor_misses() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    for value in 0..200 {
        let key = store.key(format!("old.{value}")).unwrap();
        key.put(&value).await.unwrap();
    }
    let a = store.key("a").unwrap();
    // Nothing was delivered yet on three of them: these are the ones that used to begin anew.
    let mut idle = a.watch().updates_only().await.unwrap();
    let mut all_idle = store.watch().updates_only().await.unwrap();
    let mut later = store.watch().from_revision(201).await.unwrap();
    let mut seen = store.watch().await.unwrap();
    for watch in [&mut idle, &mut all_idle, &mut later] {
        assert_eq!(next(watch).await, ".");
    }
    assert_eq!(take(&mut seen, 201).await[200], ".");

    nats.server.restart().await.unwrap();
    until("the connection is back", async || a.put(&1).await.is_ok()).await;
    for watch in [&mut idle, &mut all_idle, &mut later, &mut seen] {
        assert_eq!(next(watch).await, "a=1");
    }
    a.put(&2).await.unwrap();
    for watch in [&mut idle, &mut all_idle, &mut later, &mut seen] {
        assert_eq!(next(watch).await, "a=2");
    }
    until("one consumer serves them all", async || {
        nats.consumers("KV_b").await == 1
    })
    .await;
}

#[tokio::test]
async fn a_watch_survives_a_broken_connection_without_a_replay() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    for value in 0..50 {
        store.key("old").unwrap().put(&value).await.unwrap();
    }
    let proxy = Proxy::start(nats.server.url()).await.unwrap();
    let client = async_nats::connect(proxy.url()).await.unwrap();
    let far = KvStore::<u32>::bind(jetstream::new(client), "b").unwrap();
    let mut idle = far.watch().updates_only().await.unwrap();
    assert_eq!(next(&mut idle).await, ".");
    let mut seen = far.watch().await.unwrap();
    assert_eq!(take(&mut seen, 2).await, ["old=49", "."]);
    let a = store.key("a").unwrap();
    for value in 0..3 {
        proxy.cut().await.unwrap();
        a.put(&value).await.unwrap();
        proxy.pass().await.unwrap();
        for watch in [&mut idle, &mut seen] {
            assert_eq!(next(watch).await, format!("a={value}"));
        }
    }
    drop((idle, seen));
    until("no consumer is left", async || {
        nats.consumers("KV_b").await == 0
    })
    .await;
}

#[tokio::test]
async fn a_watch_goes_on_in_a_bucket_that_is_made_anew_and_ends_with_one_that_is_gone() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let a = store.key("a").unwrap();
    a.put(&1).await.unwrap();
    a.put(&2).await.unwrap();
    let mut watch = store.watch().await.unwrap();
    assert_eq!(take(&mut watch, 2).await, ["a=2", "."]);
    nats.js.delete_key_value("b").await.unwrap();
    nats.kv_bucket("b").await;
    a.put(&3).await.unwrap();
    // Whether the value was there when the watch found the new bucket, is chance.
    let mut events = take(&mut watch, 3).await;
    events.sort_unstable();
    assert_eq!(events, [".", "a=3", "reset"]);

    nats.js.delete_key_value("b").await.unwrap();
    match soon("the end", watch.next()).await {
        Some(Err(StoreError::BucketNotFound { bucket })) => assert_eq!(bucket, "b"),
        other => panic!("{other:?}"),
    }
    assert!(soon("the end", watch.next()).await.is_none());
}

#[tokio::test]
async fn a_replicated_bucket_keeps_the_same_promises() {
    let cluster = TestCluster::start().await.unwrap();
    let client = async_nats::connect(cluster.server(0).url()).await.unwrap();
    let js = jetstream::new(client);
    let config = jetstream::kv::Config {
        bucket: "b".to_owned(),
        history: 10,
        num_replicas: 3,
        ..Default::default()
    };
    // A fresh cluster sometimes leaves the first request to make a stream without an answer.
    until("a bucket", async || {
        js.create_key_value(config.clone()).await.is_ok()
    })
    .await;
    let store = KvStore::<u32>::bind(js, "b").unwrap();
    let a = store.key("a").unwrap();
    // Right after its creation a bucket may have no leader yet.
    until("the first write", async || a.put(&1).await.is_ok()).await;
    for round in 0..20 {
        let first = a.put(&round).await.unwrap();
        let second = a.update(&round, first).await.unwrap();
        match a.update(&0, first).await {
            Err(StoreError::Conflict {
                expected, current, ..
            }) => {
                // The revision is asked from any replica, which may lag.
                assert!(current.is_some_and(|c| c <= second), "{current:?}");
                assert_eq!(expected, first);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            a.create(&0).await,
            Err(StoreError::Conflict { .. })
        ));
        a.delete().await.unwrap();
        a.create(&round).await.unwrap();
        a.purge().await.unwrap();
        a.create(&round).await.unwrap();
    }
}

#[test]
fn stores_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + std::fmt::Debug>() {}
    fn sent<T: Send>() {}
    // Whatever the values are.
    shared::<KvStore<std::rc::Rc<u8>>>();
    shared::<nats_service::KvKey<std::rc::Rc<u8>>>();
    shared::<nats_service::ObjectStore<std::rc::Rc<u8>>>();
    sent::<Watch<std::rc::Rc<u8>>>();
}

#[tokio::test]
async fn a_watch_whose_consumer_is_deleted_under_it_goes_on() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let a = store.key("a").unwrap();
    let mut watch = store.watch().await.unwrap();
    assert_eq!(next(&mut watch).await, ".");
    let stream = nats.js.get_stream("KV_b").await.unwrap();
    let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
    for name in &names {
        stream.delete_consumer(name).await.unwrap();
    }
    a.put(&1).await.unwrap();
    assert_eq!(next(&mut watch).await, "a=1");
}

#[tokio::test]
async fn a_watch_that_nobody_polls_misses_nothing_when_its_subscription_overflows() {
    let nats = Nats::start().await;
    nats.kv_bucket("b").await;
    // A subscription that holds little; what comes beyond it, async-nats drops.
    let options = async_nats::ConnectOptions::new().subscription_capacity(50);
    let client = options.connect(nats.server.url()).await.unwrap();
    let small = KvStore::<u32>::bind(jetstream::new(client), "b").unwrap();
    let mut watch = small.watch().await.unwrap();
    assert_eq!(next(&mut watch).await, ".");
    let count = 200;
    let mut acks = Vec::new();
    for value in 0..count {
        let subject = format!("$KV.b.k.{value}");
        let body = Bytes::from(value.to_string());
        acks.push(nats.js.publish(subject, body).await.unwrap());
    }
    for ack in acks {
        ack.await.unwrap();
    }
    for value in 0..count {
        assert_eq!(next(&mut watch).await, format!("k.{value}={value}"));
    }
}

#[tokio::test]
async fn a_selection_sees_only_its_tenant() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    for (value, key) in ["eu.a", "us.a", "eu", "eu.b", "eux.a"].iter().enumerate() {
        let value = u32::try_from(value).unwrap();
        store.key(*key).unwrap().put(&value).await.unwrap();
    }
    store.key("eu.c").unwrap().put(&9).await.unwrap();
    store.key("eu.c").unwrap().delete().await.unwrap();
    let eu = store.under("eu").unwrap();
    let keys: Vec<String> = eu.keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys, ["eu.a", "eu.b"]);
    let entries: Vec<_> = eu.entries().await.unwrap().try_collect().await.unwrap();
    assert_eq!(entries.len(), 2);
    let mut watch = eu.watch().ignore_deletes().await.unwrap();
    assert_eq!(take(&mut watch, 3).await, ["eu.a=0", "eu.b=3", "."]);
    store.key("us.b").unwrap().put(&1).await.unwrap();
    store.key("eu.d").unwrap().put(&2).await.unwrap();
    assert_eq!(next(&mut watch).await, "eu.d=2");
    for prefix in ["*", ">", "", "eu.", "eu.>"] {
        assert!(matches!(store.under(prefix), Err(StoreError::Key(_))));
    }
}

#[tokio::test]
async fn many_keys_are_watched_together_and_no_wildcard_gets_in() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    for key in ["a", "b", "c"] {
        store.key(key).unwrap().put(&1).await.unwrap();
    }
    let mut watch = store.watch_many(["c", "a", "a"]).await.unwrap();
    assert_eq!(take(&mut watch, 3).await, ["a=1", "c=1", "."]);
    for refused in [vec!["a", "*"], vec![">"], vec![]] {
        let refused = store.watch_many(refused).await;
        assert!(matches!(refused, Err(StoreError::Key(_))));
    }
}

#[tokio::test]
async fn a_bucket_without_direct_get_is_read_through_its_leader() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let mut config = nats.js.get_stream("KV_b").await.unwrap();
    let mut config = config.info().await.unwrap().config.clone();
    config.allow_direct = false;
    nats.js.update_stream(config).await.unwrap();
    let key = store.key("a").unwrap();
    assert!(key.get().await.unwrap().is_none());
    let revision = key.put(&1).await.unwrap();
    assert_eq!(key.get().await.unwrap().unwrap().into_value(), 1);
    assert_eq!(key.get_at(revision).await.unwrap().unwrap().into_value(), 1);
    key.delete().await.unwrap();
    assert!(key.get().await.unwrap().is_none());
}

#[tokio::test]
async fn a_missing_bucket_says_so() {
    let nats = Nats::start().await;
    let store = KvStore::<u32>::bind(nats.js.clone(), "nowhere").unwrap();
    let key = store.key("a").unwrap();
    let errors = [
        key.get().await.unwrap_err(),
        key.put(&1).await.unwrap_err(),
        key.create(&1).await.unwrap_err(),
        key.history().await.unwrap_err(),
        store.watch().await.unwrap_err(),
        store.status().await.unwrap_err(),
    ];
    for error in errors {
        match error {
            StoreError::BucketNotFound { bucket } => assert_eq!(bucket, "nowhere"),
            other => panic!("{other:?}"),
        }
    }
    for name in ["", "a.b", "a b", "ü", "*"] {
        let refused = KvStore::<u32>::bind(nats.js.clone(), name);
        assert!(matches!(refused, Err(StoreError::BucketName { .. })));
    }
}

#[tokio::test]
async fn the_status_is_that_of_now() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    assert_eq!(store.status().await.unwrap().values, 0);
    store.key("a").unwrap().put(&1).await.unwrap();
    let status = store.status().await.unwrap();
    assert_eq!(
        (status.values, status.history, status.last_revision),
        (1, 10, 1)
    );
    assert_eq!((status.replicas, status.ttl), (1, None));
}
