//! Many keys at once, against a real server.

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{KvStore, StoreError};
use nats_service_tests::{Nats, soon, too_old};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

async fn bucket(nats: &Nats) -> KvStore<String> {
    nats.kv_bucket("b").await;
    KvStore::bind(nats.js.clone(), "b").expect("a store")
}

/// One that keeps the last revision of a key only.
async fn bucket_of_one(nats: &Nats) -> KvStore<String> {
    let config = jetstream::kv::Config {
        bucket: "b".to_owned(),
        ..Default::default()
    };
    nats.js.create_key_value(config).await.expect("a bucket");
    KvStore::bind(nats.js.clone(), "b").expect("a store")
}

/// `k.0` to `k.<count>`, each with its number.
async fn fill(nats: &Nats, count: usize) {
    let mut acks = Vec::new();
    for i in 0..count {
        let body = Bytes::from(format!("\"{i}\""));
        let ack = nats.js.publish(format!("$KV.b.k.{i}"), body).await;
        acks.push(ack.expect("a publish"));
        if acks.len() == 1000 {
            for ack in acks.drain(..) {
                ack.await.expect("an acknowledgement");
            }
        }
    }
    for ack in acks {
        ack.await.expect("an acknowledgement");
    }
}

fn keys(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|i| format!("k.{i}"))
}

async fn without_direct_get(nats: &Nats) {
    let mut stream = nats.js.get_stream("KV_b").await.expect("the stream");
    let mut config = stream.info().await.expect("it").config.clone();
    config.allow_direct = false;
    nats.js.update_stream(config).await.expect("an update");
}

#[tokio::test]
async fn many_values_come_whole_with_deletions_among_them() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    fill(&nats, 2500).await;
    // Deleted and purged ones in the middle of a page, where others stop.
    for i in [0, 3, 700, 1023, 1024, 2499] {
        let key = store.key(format!("k.{i}")).unwrap();
        if i % 2 == 0 {
            key.delete().await.unwrap();
        } else {
            key.purge().await.unwrap();
        }
    }
    let asked = keys(0..2600)
        .chain(keys(5..10))
        .chain(["nothing".to_owned()]);
    let asked: Vec<String> = asked.collect();
    let found = store.get_many(asked.clone()).await.unwrap();
    assert_eq!(found.len(), 2494);
    for (key, entry) in &found {
        assert_eq!(key.strip_prefix("k."), Some(entry.value().as_str()));
        assert_eq!(key, entry.key());
    }
    let streamed: Vec<_> = store.get_many(asked).stream().try_collect().await.unwrap();
    assert_eq!(streamed.len(), 2494);
    let none: Vec<String> = Vec::new();
    assert!(store.get_many(none).await.unwrap().is_empty());
    assert!(store.get_many(["nothing"]).await.unwrap().is_empty());
    match store.get_many(["k.1", "k.*"]).await {
        Err(StoreError::Key(error)) => assert!(error.to_string().contains("wildcard")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn values_beyond_one_part_come_all_and_once() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    // 40 MB in one page of keys.
    let large = "x".repeat(400_000);
    for i in 0..100 {
        let key = store.key(format!("k.{i}")).unwrap();
        key.put(&large).await.unwrap();
    }
    let stream = store.get_many(keys(0..100)).stream();
    let mut seen = BTreeSet::new();
    let mut stream = std::pin::pin!(stream);
    while let Some(entry) = stream.next().await {
        let entry = entry.unwrap();
        assert_eq!(entry.value().len(), large.len());
        assert!(seen.insert(entry.key().to_owned()), "{} twice", entry.key());
        // Written again between the parts: it is not lost, and does not come again.
        if seen.len() == 1 {
            for i in [20, 50, 99] {
                let key = store.key(format!("k.{i}")).unwrap();
                key.put(&large).await.unwrap();
            }
        }
    }
    let missing: Vec<_> = keys(0..100).filter(|key| !seen.contains(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let all = store.under("k").unwrap().get_all().await.unwrap();
    assert_eq!(all.len(), 100);
}

/// With one revision a key, what was found last is gone with the next write: an answer has to be of one moment.
#[tokio::test]
async fn a_key_that_is_written_all_the_time_is_never_missing() {
    let nats = Nats::start().await;
    let store = bucket_of_one(&nats).await;
    fill(&nats, 100).await;
    let js = nats.js.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            let acks = (0..50).map(|i| js.publish(format!("$KV.b.k.{i}"), "\"again\"".into()));
            for ack in join_all(acks).await {
                ack.unwrap().await.unwrap();
            }
        }
    });
    for round in 0..100 {
        let found = store.get_many(keys(0..110)).await.unwrap();
        assert_eq!(found.len(), 100, "round {round}");
        let found = store.under("k").unwrap().get_all().await.unwrap();
        assert_eq!(found.len(), 100, "round {round}");
        if !too_old(1).await {
            let found = store.get_many(keys(0..110)).snapshot().await.unwrap();
            assert_eq!(found.entries.len(), 100, "round {round}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
}

#[tokio::test]
async fn one_that_cannot_be_decoded_costs_only_itself_in_a_stream() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    fill(&nats, 3).await;
    let bad = nats.js.publish("$KV.b.k.1", "no text".into()).await;
    bad.unwrap().await.unwrap();
    let items: Vec<_> = store.get_many(keys(0..3)).stream().collect().await;
    assert_eq!(items.iter().filter(|item| item.is_ok()).count(), 2);
    let all = store.get_many(keys(0..3)).await;
    assert!(matches!(
        all,
        Err(StoreError::Undecodable { revision: 4, .. })
    ));
}

#[tokio::test]
async fn without_direct_get_the_same_comes_key_by_key() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    fill(&nats, 300).await;
    store.key("k.7").unwrap().delete().await.unwrap();
    without_direct_get(&nats).await;
    let found = store.get_many(keys(0..310)).await.unwrap();
    assert_eq!(found.len(), 299);
    assert_eq!(
        store.under("k").unwrap().get_all().await.unwrap().len(),
        299
    );
    let snapshot = store.get_many(keys(0..3)).snapshot().await;
    assert!(matches!(snapshot, Err(StoreError::Unsupported { .. })));
}

#[tokio::test]
async fn a_missing_bucket_says_so_when_many_keys_are_read() {
    let nats = Nats::start().await;
    let store = KvStore::<u32>::bind(nats.js.clone(), "nowhere").unwrap();
    match soon("an answer", store.get_many(["a", "b"]).into_future()).await {
        Err(StoreError::BucketNotFound { bucket }) => assert_eq!(bucket, "nowhere"),
        other => panic!("{other:?}"),
    }
    let all = store.all().get_all().await;
    assert!(matches!(all, Err(StoreError::BucketNotFound { .. })));
}

#[tokio::test]
async fn a_selection_of_any_size_is_got() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    fill(&nats, 1500).await;
    store.key("other").unwrap().put(&"o".into()).await.unwrap();
    store.key("k.5").unwrap().delete().await.unwrap();
    // Too many for one request.
    let all = store.under("k").unwrap().get_all().await.unwrap();
    assert_eq!(all.len(), 1499);
    assert!(!all.contains_key("k.5") && !all.contains_key("other"));
    let few = store.under("k.1").unwrap().get_all().await.unwrap();
    assert!(few.is_empty());
}

/// Two keys that are always written together, the sum of which never changes: any reader of both must find it.
#[tokio::test]
async fn a_snapshot_is_of_one_moment() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket_of_one(&nats).await;
    fill(&nats, 3000).await;
    let nothing = store.get_many(["x", "y"]).snapshot().await.unwrap();
    assert_eq!((nothing.revision, nothing.entries.len()), (0, 0));
    let all = store.get_many(keys(0..3000)).snapshot().await.unwrap();
    assert_eq!((all.revision, all.entries.len()), (3000, 3000));

    // `k.0` is written before `k.2999`, always: in no moment is it behind. 1,023 keys to a page, so these two are on
    // different ones, and they are written without a pause.
    let (first, last) = (store.key("k.0").unwrap(), store.key("k.2999").unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        let mut i = 10_000;
        while !stopped.load(Ordering::Relaxed) {
            i += 1;
            first.put(&i.to_string()).await.unwrap();
            last.put(&i.to_string()).await.unwrap();
        }
    });
    let (mut moments, mut written) = (0, 0);
    while moments < 20 || written < 20 {
        let snapshot = store.get_many(keys(0..3000)).snapshot().await.unwrap();
        assert_eq!(snapshot.entries.len(), 3000);
        let number = |key: &str| snapshot.entries[key].value().parse::<u32>().unwrap();
        let (first, last) = (number("k.0"), number("k.2999"));
        let together = first == last || first == last + 1 || last == 2999;
        assert!(together, "{first} and {last} at {}", snapshot.revision);
        for entry in snapshot.entries.values() {
            assert!(entry.revision <= snapshot.revision);
        }
        (moments, written) = (moments + 1, first.saturating_sub(10_000));
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let end = store.get_many(keys(0..3000)).snapshot().await.unwrap();
    assert_eq!(end.entries["k.0"].value(), end.entries["k.2999"].value());
}

/// What is written meanwhile has to fit one answer: here it does not, and nothing ever stands still.
#[tokio::test]
async fn a_snapshot_of_more_than_an_answer_that_is_written_all_the_time_says_so() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket_of_one(&nats).await;
    let large = Bytes::from(format!("\"{}\"", "x".repeat(500_000)));
    let js = nats.js.clone();
    let write = async move || {
        let acks = (0..20).map(|i| js.publish(format!("$KV.b.k.{i}"), large.clone()));
        for ack in join_all(acks).await {
            ack.unwrap().await.unwrap();
        }
    };
    write().await;
    let writer = tokio::spawn(async move {
        loop {
            write().await;
        }
    });
    let snapshot = soon("an end", store.get_many(keys(0..20)).snapshot()).await;
    assert!(matches!(snapshot, Err(StoreError::Unsettled { keys: 20 })));
    writer.abort();
    let _ = writer.await;
    let snapshot = store.get_many(keys(0..20)).snapshot().await.unwrap();
    assert_eq!(snapshot.entries.len(), 20);
}

/// Keys that are written while they are listed leave their places: where a listing had not come to them yet, they are to be
/// met at the end. Their values are the writers' numbers, so that none is older than what was there at the start.
#[tokio::test]
async fn a_listing_misses_no_key_that_is_written_meanwhile() {
    let nats = Nats::start().await;
    let store = bucket_of_one(&nats).await;
    const COUNT: usize = 20_000;
    fill(&nats, COUNT).await;
    let js = nats.js.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        let mut i = 0;
        while !stopped.load(Ordering::Relaxed) {
            // The latest first, as the listing comes to them last.
            let key = COUNT - 1 - (i * 7919) % COUNT;
            let ack = js.publish(format!("$KV.b.k.{key}"), Bytes::from(format!("\"{i}\"")));
            ack.await.unwrap().await.unwrap();
            i += 1;
        }
        i
    });
    for _ in 0..5 {
        let names: Vec<String> = store.keys().await.unwrap().try_collect().await.unwrap();
        let names: BTreeSet<String> = names.into_iter().collect();
        assert_eq!(names.len(), COUNT);
        let entries = store.entries().await.unwrap();
        let entries: Vec<_> = entries.try_collect().await.unwrap();
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.key()).collect();
        assert_eq!(names.len(), COUNT);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0);
}

#[tokio::test]
async fn a_listing_ends_when_everything_is_purged_under_it() {
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    fill(&nats, 5000).await;
    let mut names = store.keys().await.unwrap();
    names.next().await.unwrap().unwrap();
    store.key("late").unwrap().put(&"l".into()).await.unwrap();
    let stream = nats.js.get_stream("KV_b").await.unwrap();
    stream.purge().await.unwrap();
    soon("the end", names.count()).await;
}

#[tokio::test]
async fn old_marks_go_and_nothing_that_has_a_value() {
    use std::time::Duration;
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    fill(&nats, 100).await;
    for i in 0..50 {
        let key = store.key(format!("k.{i}")).unwrap();
        match i % 2 {
            0 => key.delete().await.unwrap(),
            _ => key.purge().await.unwrap(),
        };
    }
    let again = store.key("k.0").unwrap();
    let again = again.create(&"back".into()).await.unwrap();
    let all = store.all();
    assert_eq!(all.purge_deletes(Duration::from_secs(60)).await.unwrap(), 0);
    let some = store.under("other").unwrap();
    assert_eq!(some.purge_deletes(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(all.purge_deletes(Duration::ZERO).await.unwrap(), 49);
    // One for each that has a value, and the history of the one that came back.
    let status = store.status().await.unwrap();
    assert_eq!((status.keys, status.values), (51, 53));
    let kept = store.key("k.0").unwrap().history().await.unwrap();
    assert_eq!(
        kept.iter().map(|it| it.revision).collect::<Vec<_>>(),
        [1, 101, again]
    );
}

#[tokio::test]
async fn a_status_says_how_full_the_bucket_is_now() {
    let nats = Nats::start().await;
    let config = jetstream::kv::Config {
        bucket: "b".to_owned(),
        max_bytes: 100_000,
        max_value_size: 50_000,
        ..Default::default()
    };
    nats.js.create_key_value(config).await.unwrap();
    let store = KvStore::<String>::bind(nats.js.clone(), "b").unwrap();
    let status = store.status().await.unwrap();
    assert_eq!((status.fullness(), status.keys), (Some(0.0), 0));
    assert_eq!(
        (status.max_value_size, status.key_ttl),
        (Some(50_000), false)
    );
    let half = "x".repeat(40_000);
    store.key("a").unwrap().put(&half).await.unwrap();
    let full = store.status().await.unwrap().fullness().unwrap();
    assert!((0.4..0.5).contains(&full), "{full}");
    store.key("b").unwrap().put(&half).await.unwrap();
    match store.key("c").unwrap().put(&half).await {
        Err(StoreError::Server { description, .. }) => {
            assert!(description.contains("maximum bytes"))
        }
        other => panic!("{other:?}"),
    }
}
