//! Watches of one bucket in one process: they share a consumer, and none is harmed by another.

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::StreamExt as _;
use nats_service::{KvStore, Operation, Watch, WatchEvent};
use nats_service_testkit::Proxy;
use nats_service_tests::{Nats, soon, until};
use std::collections::BTreeMap;

async fn bucket(nats: &Nats) -> KvStore<u64> {
    nats.kv_bucket("b").await;
    KvStore::bind(nats.js.clone(), "b").expect("a store")
}

/// The next event, in short: `key=value`, `key-`, `.` for the end of what was there.
async fn next(watch: &mut Watch<u64>) -> String {
    let event = soon("the next change", watch.next()).await;
    match event.expect("a watch does not end").expect("readable") {
        WatchEvent::InitialDone => ".".to_owned(),
        WatchEvent::Change(change) => match change.operation {
            Operation::Put(value) => format!("{}={value}", change.key),
            _ => format!("{}-", change.key),
        },
        WatchEvent::Gap { after, until } => format!("gap {after}..{until}"),
        WatchEvent::Reset => "reset".to_owned(),
        other => panic!("{other:?}"),
    }
}

async fn take(watch: &mut Watch<u64>, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(next(watch).await);
    }
    events
}

async fn shared(nats: &Nats) {
    until("one consumer serves them all", async || {
        nats.consumers("KV_b").await == 1
    })
    .await;
}

/// Publishes many values at once: `<key>.<n>` or, with one key, its revisions.
async fn flood(nats: &Nats, count: u64, key: impl Fn(u64) -> String, body: &Bytes) {
    let mut acks = Vec::new();
    for n in 0..count {
        let subject = format!("$KV.b.{}", key(n));
        acks.push(nats.js.publish(subject, body.clone()).await.unwrap());
        if acks.len() >= 1000 {
            for ack in acks.drain(..) {
                ack.await.unwrap();
            }
        }
    }
    for ack in acks {
        ack.await.unwrap();
    }
}

#[tokio::test]
async fn fifty_watches_of_a_bucket_share_one_consumer_and_each_gets_its_own() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    for n in 0..5 {
        store
            .key(format!("user.{n}"))
            .unwrap()
            .put(&n)
            .await
            .unwrap();
    }
    let mut all = Vec::new();
    let mut one = Vec::new();
    let mut users = Vec::new();
    for n in 0..17 {
        all.push(store.watch().await.unwrap());
        one.push(
            store
                .key(format!("user.{}", n % 5))
                .unwrap()
                .watch()
                .await
                .unwrap(),
        );
        users.push(store.under("user").unwrap().watch().await.unwrap());
    }
    for watch in all.iter_mut().chain(&mut users) {
        let events = take(watch, 6).await;
        assert_eq!(
            events,
            [
                "user.0=0", "user.1=1", "user.2=2", "user.3=3", "user.4=4", "."
            ]
        );
    }
    for (n, watch) in one.iter_mut().enumerate() {
        let n = n % 5;
        assert_eq!(
            take(watch, 2).await,
            [format!("user.{n}={n}"), ".".to_owned()]
        );
    }
    shared(&nats).await;

    store.key("user.3").unwrap().put(&33).await.unwrap();
    store.key("order.1").unwrap().put(&1).await.unwrap();
    store.key("user.0").unwrap().delete().await.unwrap();
    for watch in &mut all {
        assert_eq!(take(watch, 3).await, ["user.3=33", "order.1=1", "user.0-"]);
    }
    for watch in &mut users {
        assert_eq!(take(watch, 2).await, ["user.3=33", "user.0-"]);
    }
    for (n, watch) in one.iter_mut().enumerate() {
        match n % 5 {
            0 => assert_eq!(next(watch).await, "user.0-"),
            3 => assert_eq!(next(watch).await, "user.3=33"),
            _ => {}
        }
    }
    assert_eq!(nats.consumers("KV_b").await, 1);
    drop((all, one, users));
    until("no consumer is left", async || {
        nats.consumers("KV_b").await == 0
    })
    .await;
}

#[tokio::test]
async fn watches_of_more_keys_than_a_consumer_has_filters_share_one_as_well() {
    const KEYS: usize = 300;
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let key = |n: usize| store.key(format!("user.{n}.name")).unwrap();
    let mut watches = Vec::new();
    for n in 0..KEYS {
        key(n).put(&0).await.unwrap();
        watches.push(key(n).watch().await.unwrap());
    }
    for (n, watch) in watches.iter_mut().enumerate() {
        assert_eq!(
            take(watch, 2).await,
            [format!("user.{n}.name=0"), ".".to_owned()]
        );
    }
    shared(&nats).await;
    // What nobody watches is no form of what somebody does.
    store.key("user.1.age").unwrap().put(&44).await.unwrap();
    for n in 0..KEYS {
        key(n).put(&1).await.unwrap();
    }
    for (n, watch) in watches.iter_mut().enumerate() {
        assert_eq!(next(watch).await, format!("user.{n}.name=1"));
    }
    assert_eq!(nats.consumers("KV_b").await, 1);
}

#[tokio::test]
async fn watches_of_headers_only_are_sent_no_values_and_share_a_consumer_of_their_own() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    store.key("a").unwrap().put(&1).await.unwrap();
    let mut whole = store.watch().await.unwrap();
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(store.watch().headers_only().await.unwrap());
    }
    store.key("a").unwrap().put(&2).await.unwrap();
    store.key("a").unwrap().delete().await.unwrap();
    assert_eq!(take(&mut whole, 4).await, ["a=1", ".", "a=2", "a-"]);
    for watch in &mut watches {
        let mut changes = Vec::new();
        while changes.len() < 3 {
            let event = soon("the next change", watch.next()).await;
            if let WatchEvent::Change(change) = event.expect("it goes on").expect("readable") {
                let put = matches!(change.operation, Operation::Put(()));
                changes.push((change.key, change.revision, put));
            }
        }
        let change = |revision, put| ("a".to_owned(), revision, put);
        assert_eq!(
            changes,
            [change(1, true), change(2, true), change(3, false)]
        );
    }
    until("one consumer with values, and one without", async || {
        let stream = nats.js.get_stream("KV_b").await.unwrap();
        let consumers: Vec<_> = stream.consumers().collect().await;
        let without = consumers
            .iter()
            .flatten()
            .filter(|it| it.config.headers_only);
        (consumers.len(), without.count()) == (2, 1)
    })
    .await;
}

#[tokio::test]
async fn a_consumer_delivers_only_what_somebody_watches() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let filters = async || {
        let stream = nats.js.get_stream("KV_b").await.unwrap();
        let mut consumers = stream.consumers();
        let mut found = Vec::new();
        while let Some(consumer) = consumers.next().await {
            let config = consumer.unwrap().config;
            let mut filters = config.filter_subjects;
            filters.extend((!config.filter_subject.is_empty()).then_some(config.filter_subject));
            filters.sort();
            found.push(filters);
        }
        found
    };
    let mut a = store.key("a").unwrap().watch().await.unwrap();
    assert_eq!(next(&mut a).await, ".");
    assert_eq!(filters().await, [["$KV.b.a"]]);
    let mut x = store.under("x").unwrap().watch().await.unwrap();
    assert_eq!(next(&mut x).await, ".");
    until("both are in one", async || {
        filters().await == [["$KV.b.a", "$KV.b.x.>"]]
    })
    .await;
    store.key("x.1").unwrap().put(&1).await.unwrap();
    store.key("y").unwrap().put(&1).await.unwrap();
    store.key("a").unwrap().put(&2).await.unwrap();
    assert_eq!(next(&mut x).await, "x.1=1");
    assert_eq!(next(&mut a).await, "a=2");
    drop(x);
    until("nobody wants x any more", async || {
        filters().await == [["$KV.b.a"]]
    })
    .await;
    store.key("a").unwrap().put(&3).await.unwrap();
    assert_eq!(next(&mut a).await, "a=3");
}

/// Watches come and go while values are written without a pause: each sees every revision from its start on, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_joins_later_misses_nothing_and_sees_nothing_twice() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let (written, _) = tokio::sync::watch::channel(0);
    let writer = {
        let (store, written) = (store.clone(), written.clone());
        tokio::spawn(async move {
            for n in 1..=4000_u64 {
                let key = store.key(format!("k.{}", n % 7)).unwrap();
                key.put(&n).await.unwrap();
                written.send_replace(n);
            }
        })
    };
    let mut joiners = Vec::new();
    for n in 0..40_u64 {
        let (store, mut written) = (store.clone(), written.subscribe());
        joiners.push(tokio::spawn(async move {
            let so_many = written.wait_for(|so_far| *so_far >= n * 50);
            soon("its turn", so_many).await.unwrap();
            let one_key = n % 3 == 0;
            let mut watch = match one_key {
                true => store.key("k.3").unwrap().watch().await.unwrap(),
                false => store.watch().await.unwrap(),
            };
            let (mut last, mut done, mut latest) = (0, false, BTreeMap::new());
            while last < if one_key { 3994 } else { 4000 } {
                match soon("a change", watch.next()).await.unwrap().unwrap() {
                    WatchEvent::InitialDone => {
                        assert!(!done, "the mark comes once");
                        done = true;
                    }
                    WatchEvent::Change(change) => {
                        let value = *change.value().unwrap();
                        assert_eq!(value, change.revision);
                        assert!(value > last, "{value} came after {last}");
                        if done && !one_key && last > 0 {
                            assert_eq!(value, last + 1, "nothing is missed");
                        }
                        let before = latest.insert(change.key.clone(), value);
                        if done && before.is_some() {
                            assert_eq!(before, Some(value - 7), "nothing of a key is missed");
                        }
                        last = value;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    for joiner in joiners {
        joiner.await.unwrap();
    }
    writer.await.unwrap();
    until("no consumer is left", async || {
        nats.consumers("KV_b").await == 0
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_nobody_polls_holds_up_no_other_and_does_not_grow() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let mut lazy = store.watch().await.unwrap();
    let mut busy = store.watch().await.unwrap();
    assert_eq!(next(&mut lazy).await, ".");
    assert_eq!(next(&mut busy).await, ".");
    shared(&nats).await;

    let count = 5_000;
    let reading = async {
        for n in 0..count {
            assert_eq!(next(&mut busy).await, format!("k.{n}=7"));
        }
    };
    let body = Bytes::from_static(b"7");
    let writing = flood(&nats, count, |n| format!("k.{n}"), &body);
    tokio::join!(reading, writing);
    // The other one is left behind, and costs the server nothing.
    assert_eq!(nats.consumers("KV_b").await, 1);
    // It goes on where it was, and comes back into the fold.
    for n in 0..count {
        assert_eq!(next(&mut lazy).await, format!("k.{n}=7"));
    }
    store.key("new").unwrap().put(&1).await.unwrap();
    assert_eq!(next(&mut lazy).await, "new=1");
    assert_eq!(next(&mut busy).await, "new=1");
    shared(&nats).await;
}

#[tokio::test]
async fn a_watch_that_was_left_behind_is_told_what_it_cannot_get_any_more() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let mut lazy = store.watch().await.unwrap();
    assert_eq!(next(&mut lazy).await, ".");
    // More than waits for it, and then a key of which the bucket keeps ten revisions.
    let body = Bytes::from_static(b"7");
    flood(&nats, 2_000, |n| format!("k.{n}"), &body).await;
    until("it is left behind", async || {
        nats.consumers("KV_b").await == 0
    })
    .await;
    flood(&nats, 500, |_| "hot".to_owned(), &body).await;
    store.key("end").unwrap().put(&1).await.unwrap();
    let mut events = Vec::new();
    while events.last().is_none_or(|last| last != "end=1") {
        events.push(next(&mut lazy).await);
    }
    let gap = |event: &String| event.starts_with("gap");
    let gaps: Vec<String> = events.extract_if(.., |event| gap(event)).collect();
    assert_eq!(gaps, ["gap 1024..2501"]);
    assert_eq!(events.len(), 2_000 + 10 + 1);
}

#[tokio::test]
async fn a_watch_goes_on_from_a_revision_and_is_told_when_the_bucket_no_longer_has_it() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    for n in 1..=30 {
        store.key("a").unwrap().put(&n).await.unwrap();
    }
    let mut near = store.watch().from_revision(25).await.unwrap();
    assert_eq!(take(&mut near, 7).await[..2], ["a=25", "a=26"]);
    let mut far = store.watch().from_revision(5).await.unwrap();
    assert_eq!(take(&mut far, 2).await, ["gap 4..30", "a=21"]);
}

#[tokio::test]
async fn shared_watches_go_on_after_a_broken_connection_and_a_killed_server() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let proxy = Proxy::start(nats.server.url()).await.unwrap();
    let client = async_nats::connect(proxy.url()).await.unwrap();
    let far = KvStore::<u64>::bind(jetstream::new(client), "b").unwrap();
    let mut watches = Vec::new();
    for n in 0..10 {
        let mut watch = match n % 2 {
            0 => far.watch().await.unwrap(),
            _ => far.key("a").unwrap().watch().await.unwrap(),
        };
        assert_eq!(next(&mut watch).await, ".");
        watches.push(watch);
    }
    shared(&nats).await;
    let a = store.key("a").unwrap();
    for round in 0..3 {
        proxy.cut().await.unwrap();
        a.put(&round).await.unwrap();
        proxy.pass().await.unwrap();
        for watch in &mut watches {
            assert_eq!(next(watch).await, format!("a={round}"));
        }
    }
    nats.server.kill().await.unwrap();
    nats.server.restart().await.unwrap();
    until("the connection is back", async || a.put(&9).await.is_ok()).await;
    for watch in &mut watches {
        assert_eq!(next(watch).await, "a=9");
    }
    shared(&nats).await;
    drop(watches);
    until("no consumer is left", async || {
        nats.consumers("KV_b").await == 0
    })
    .await;
}

#[tokio::test]
async fn shared_watches_begin_anew_with_another_bucket_and_end_with_one_that_is_gone() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    store.key("a").unwrap().put(&1).await.unwrap();
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut watch = store.watch().await.unwrap();
        assert_eq!(take(&mut watch, 2).await, ["a=1", "."]);
        watches.push(watch);
    }
    nats.js.delete_key_value("b").await.unwrap();
    nats.kv_bucket("b").await;
    store.key("b").unwrap().put(&2).await.unwrap();
    for watch in &mut watches {
        let mut events = take(watch, 3).await;
        events.sort_unstable();
        assert_eq!(events, [".", "b=2", "reset"]);
    }
    shared(&nats).await;
    nats.js.delete_key_value("b").await.unwrap();
    for watch in &mut watches {
        let end = soon("the end", watch.next()).await;
        assert!(matches!(
            end,
            Some(Err(nats_service::StoreError::BucketNotFound { .. }))
        ));
        assert!(soon("the end", watch.next()).await.is_none());
    }
}

/// A watch may be made in a runtime that ends before the others'.
#[tokio::test]
async fn a_runtime_that_ends_takes_no_watch_of_another_along() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let theirs = store.clone();
    let first = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .unwrap()
            .block_on(async move { theirs.watch().await.unwrap() })
    });
    let mut first = tokio::task::spawn_blocking(move || first.join().unwrap())
        .await
        .unwrap();
    let mut second = store.watch().await.unwrap();
    assert_eq!(next(&mut second).await, ".");
    store.key("a").unwrap().put(&1).await.unwrap();
    assert_eq!(next(&mut second).await, "a=1");
    // Its own task ended with its runtime, before or after it had said so.
    let mut events = Vec::new();
    while events.last().is_none_or(|last| last != "a=1") {
        events.push(next(&mut first).await);
    }
}
