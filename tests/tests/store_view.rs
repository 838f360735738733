//! Local copies of buckets: always whole, never behind a lock, and honest about how old they are.

use async_nats::jetstream;
use bytes::Bytes;
use nats_service::{KvStore, StoreError, View};
use nats_service_testkit::Proxy;
use nats_service_tests::{Nats, soon, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

async fn bucket(nats: &Nats) -> KvStore<u64> {
    nats.kv_bucket("b").await;
    KvStore::bind(nats.js.clone(), "b").expect("a store")
}

async fn put_raw(nats: &Nats, key: &str, bytes: &'static [u8]) -> u64 {
    let subject = format!("$KV.b.{key}");
    let ack = nats.js.publish(subject, Bytes::from_static(bytes)).await;
    ack.unwrap().await.unwrap().sequence
}

fn value(view: &View<u64>, key: &str) -> Option<u64> {
    view.get(key).expect("readable").map(|entry| *entry.value())
}

async fn follows(view: &View<u64>, revision: u64) {
    soon("the revision", view.wait_for(revision))
        .await
        .expect("it is kept");
}

#[tokio::test]
async fn a_view_is_whole_when_it_is_handed_out_and_follows_every_change() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let empty = soon("a view of nothing", store.view()).await.unwrap();
    assert!(empty.is_empty());
    for n in 0..2_000 {
        store
            .key(format!("user.{n}"))
            .unwrap()
            .put(&n)
            .await
            .unwrap();
    }
    let deleted = store.key("user.7").unwrap().delete().await.unwrap();
    let view = store.view().await.unwrap();
    assert_eq!((view.len(), view.revision()), (1_999, deleted));
    assert_eq!(
        (
            value(&view, "user.8"),
            value(&view, "user.7"),
            value(&view, "x")
        ),
        (Some(8), None, None)
    );

    let before = view.snapshot();
    let revision = store.key("user.8").unwrap().put(&88).await.unwrap();
    follows(&view, revision).await;
    assert_eq!(value(&view, "user.8"), Some(88));
    let purged = store.key("user.9").unwrap().purge().await.unwrap();
    follows(&view, purged).await;
    assert_eq!((value(&view, "user.9"), view.len()), (None, 1_998));
    // A snapshot stays what it was.
    assert_eq!((before.len(), before.revision()), (1_999, deleted));
    assert_eq!(
        before.get("user.8").unwrap().map(|entry| *entry.value()),
        Some(8)
    );
    let sum: u64 = before.iter().map(|entry| *entry.value()).sum();
    assert_eq!(sum, (0..2_000).sum::<u64>() - 7);
    follows(&empty, purged).await;
    assert_eq!(empty.len(), 1_998);
    until("views and watches share a consumer", async || {
        nats.consumers("KV_b").await == 1
    })
    .await;
    drop((view, empty));
    until("no consumer is left", async || {
        nats.consumers("KV_b").await == 0
    })
    .await;
}

#[tokio::test]
async fn a_view_of_a_part_has_that_part_only() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    for (n, key) in ["eu.a", "us.a", "eu.b", "eux"].into_iter().enumerate() {
        store.key(key).unwrap().put(&(n as u64)).await.unwrap();
    }
    let eu = store.under("eu").unwrap().view().await.unwrap();
    let two = store.view_many(["eux", "us.a", "us.a"]).await.unwrap();
    let one = store.key("us.a").unwrap().view().await.unwrap();
    assert_eq!((eu.len(), two.len(), one.len()), (2, 2, 1));
    store.key("us.b").unwrap().put(&5).await.unwrap();
    let revision = store.key("eu.c").unwrap().put(&6).await.unwrap();
    follows(&eu, revision).await;
    assert_eq!(
        (eu.len(), value(&eu, "us.b"), value(&eu, "us.a")),
        (3, None, None)
    );
    for refused in [vec!["a.*"], vec![">"], vec![]] {
        assert!(matches!(
            store.view_many(refused).await,
            Err(StoreError::Key(_))
        ));
    }
}

#[tokio::test]
async fn changes_are_told_and_do_not_pile_up() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let view = store.view().await.unwrap();
    let mut changes = view.changes();
    let mut last = 0;
    for n in 0..500 {
        last = store.key("a").unwrap().put(&n).await.unwrap();
    }
    follows(&view, last).await;
    // However many there were, one is told.
    let state = soon("a change", changes.next()).await.unwrap();
    assert_eq!(state.revision(), last);
    let none = tokio::time::timeout(Duration::from_millis(200), changes.next()).await;
    assert!(none.is_err());
    let deleted = store.key("a").unwrap().delete().await.unwrap();
    let state = soon("a change", changes.next()).await.unwrap();
    assert_eq!((state.revision(), state.is_empty()), (deleted, true));
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_seen_and_stops_nothing() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    store.key("a").unwrap().put(&1).await.unwrap();
    put_raw(&nats, "b", b"no number").await;
    let view = store.view().await.unwrap();
    let bad = put_raw(&nats, "a", b"?").await;
    let good = store.key("c").unwrap().put(&3).await.unwrap();
    follows(&view, good).await;
    match view.get("a").map_err(|error| error.to_string()) {
        Err(text) => {
            assert!(text.starts_with(&format!("`a` at revision {bad} is of another type")))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((view.len(), view.status().unreadable), (1, 2));
    assert_eq!(view.snapshot().unreadable().count(), 2);
    let mended = store.key("a").unwrap().put(&4).await.unwrap();
    follows(&view, mended).await;
    assert_eq!((value(&view, "a"), view.status().unreadable), (Some(4), 1));
}

#[tokio::test]
async fn a_view_survives_a_broken_connection_and_a_killed_server_and_shows_its_age() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    store.key("a").unwrap().put(&1).await.unwrap();
    let proxy = Proxy::start(nats.server.url()).await.unwrap();
    let client = async_nats::connect(proxy.url()).await.unwrap();
    let far = KvStore::<u64>::bind(jetstream::new(client), "b").unwrap();
    let view = far.view().await.unwrap();
    assert!(view.status().connected);
    proxy.cut().await.unwrap();
    until("it is seen that it is alone", async || {
        !view.status().connected
    })
    .await;
    let cut = view.status().age;
    let revision = store.key("a").unwrap().put(&2).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), view.wait_for(revision)).await;
    assert!(early.is_err(), "nothing came, and the wait was bounded");
    assert_eq!(value(&view, "a"), Some(1));
    assert!(view.status().age > cut);
    proxy.pass().await.unwrap();
    follows(&view, revision).await;
    assert_eq!(value(&view, "a"), Some(2));

    nats.server.kill().await.unwrap();
    until("it is seen that it is alone", async || {
        !view.status().connected
    })
    .await;
    assert_eq!(value(&view, "a"), Some(2));
    nats.server.restart().await.unwrap();
    let a = store.key("a").unwrap();
    until("the connection is back", async || a.put(&3).await.is_ok()).await;
    until("it follows", async || value(&view, "a") == Some(3)).await;
    let status = view.status();
    assert!(
        status.connected && status.age < Duration::from_secs(5),
        "{status:?}"
    );
    assert_eq!(status.entries, 1);
}

#[tokio::test]
async fn a_bucket_that_is_made_anew_replaces_the_view_and_one_that_is_gone_is_said() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    for n in 0..50 {
        store
            .key(format!("old.{n}"))
            .unwrap()
            .put(&n)
            .await
            .unwrap();
    }
    let view = store.view().await.unwrap();
    nats.js.delete_key_value("b").await.unwrap();
    nats.kv_bucket("b").await;
    store.key("new").unwrap().put(&1).await.unwrap();
    until("it has the new bucket", async || {
        value(&view, "new") == Some(1)
    })
    .await;
    assert_eq!((view.len(), view.status().refills), (1, 1));

    nats.js.delete_key_value("b").await.unwrap();
    until("it says that there is none", async || {
        let trouble = view.status().trouble;
        trouble.is_some_and(|it| matches!(*it, StoreError::BucketNotFound { .. }))
    })
    .await;
    assert_eq!(value(&view, "new"), Some(1), "what was known stays");
    nats.kv_bucket("b").await;
    store.key("third").unwrap().put(&3).await.unwrap();
    until("it has the third bucket", async || {
        value(&view, "third") == Some(3)
    })
    .await;
    assert_eq!((view.len(), view.status().trouble.is_none()), (1, true));
}

#[tokio::test]
async fn what_was_purged_unseen_leaves_the_view_too() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    for n in 0..50 {
        store.key(format!("k.{n}")).unwrap().put(&n).await.unwrap();
    }
    let proxy = Proxy::start(nats.server.url()).await.unwrap();
    let client = async_nats::connect(proxy.url()).await.unwrap();
    let far = KvStore::<u64>::bind(jetstream::new(client), "b").unwrap();
    let view = far.view().await.unwrap();
    proxy.cut().await.unwrap();
    store.key("k.1").unwrap().put(&7).await.unwrap();
    // The stream's own purge leaves no marker; only the hole in what came since tells of it.
    nats.js
        .get_stream("KV_b")
        .await
        .unwrap()
        .purge()
        .await
        .unwrap();
    store.key("later").unwrap().put(&1).await.unwrap();
    proxy.pass().await.unwrap();
    until("only what is left is there", async || {
        view.len() == 1 && value(&view, "later") == Some(1)
    })
    .await;
}

#[tokio::test]
async fn values_leave_the_view_when_they_expire_without_a_marker() {
    let nats = Nats::start().await;
    let config = jetstream::kv::Config {
        bucket: "b".to_owned(),
        max_age: Duration::from_secs(2),
        ..Default::default()
    };
    nats.js.create_key_value(config).await.unwrap();
    let store = KvStore::<u64>::bind(nats.js.clone(), "b").unwrap();
    store.key("a").unwrap().put(&1).await.unwrap();
    let view = store.view().await.unwrap();
    assert_eq!(value(&view, "a"), Some(1));
    let mut changes = view.changes();
    let state = soon("its end", changes.next()).await.unwrap();
    assert!(state.is_empty());
    assert!(store.key("a").unwrap().get().await.unwrap().is_none() || view.is_empty());
}

/// Two keys are always written one after the other; a state in which the second is ahead never was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_only_states_that_the_bucket_had() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    store.key("first").unwrap().put(&0).await.unwrap();
    store.key("second").unwrap().put(&0).await.unwrap();
    let view = store.view().await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (view, done) = (view.clone(), done.clone());
            std::thread::spawn(move || {
                let mut states = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    let state = view.snapshot();
                    let of = |key| *state.get(key).unwrap().unwrap().value();
                    let (first, second) = (of("first"), of("second"));
                    assert!(first == second || first == second + 1, "{first} {second}");
                    states += 1;
                }
                states
            })
        })
        .collect();
    let mut last = 0;
    for n in 1..=1_000 {
        store.key("first").unwrap().put(&n).await.unwrap();
        last = store.key("second").unwrap().put(&n).await.unwrap();
    }
    follows(&view, last).await;
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        let states = tokio::task::spawn_blocking(|| reader.join()).await.unwrap();
        assert!(states.unwrap() > 0);
    }
}
