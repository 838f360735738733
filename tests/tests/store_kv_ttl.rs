//! Times to live of single keys, and what is seen of their end, against a real server.

use futures_util::StreamExt as _;
use nats_service::{KvStore, Operation, StoreError, TtlRule, WatchEvent};
use nats_service_tests::{Nats, soon, too_old, until};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A bucket that takes times to live, with or without limit markers.
async fn bucket(nats: &Nats, markers: Option<Duration>) -> KvStore<u32> {
    nats.kv_bucket("b").await;
    let mut stream = nats.js.get_stream("KV_b").await.expect("the stream");
    let mut config = stream.info().await.expect("it").config.clone();
    config.allow_message_ttl = true;
    config.subject_delete_marker_ttl = markers;
    nats.js.update_stream(config).await.expect("an update");
    KvStore::bind(nats.js.clone(), "b").expect("a store")
}

fn rule<V: std::fmt::Debug>(refused: Result<V, StoreError>) -> TtlRule {
    match refused {
        Err(StoreError::Ttl { key, rule }) => {
            assert_eq!(key, "a");
            rule
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_created_key_ends_with_its_time_also_over_a_deletion_and_a_purge() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats, None).await;
    let [new, deleted, purged, stays] =
        ["new", "deleted", "purged", "stays"].map(|key| store.key(key).unwrap());
    deleted.put(&0).await.unwrap();
    deleted.delete().await.unwrap();
    purged.put(&0).await.unwrap();
    purged.purge().await.unwrap();
    let since = Instant::now();
    for key in [&new, &deleted, &purged, &stays] {
        key.with_ttl(2 * SECOND).create(&1).await.unwrap();
        assert_eq!(*key.get().await.unwrap().unwrap().value(), 1);
    }
    // A value is there: it is not created, whatever its time.
    let exists = new.with_ttl(SECOND).create(&2).await;
    assert!(matches!(
        exists,
        Err(StoreError::Conflict {
            current: Some(_),
            ..
        })
    ));
    // An update has no time, and makes the key permanent.
    stays.put(&2).await.unwrap();
    for key in [&new, &deleted, &purged] {
        until("the key ends", async || key.get().await.unwrap().is_none()).await;
        assert!(
            since.elapsed() >= 2 * SECOND,
            "{key:?} after {:?}",
            since.elapsed()
        );
        key.with_ttl(60 * SECOND).create(&3).await.unwrap();
    }
    assert_eq!(*stays.get().await.unwrap().unwrap().value(), 2);
}

#[tokio::test]
async fn the_mark_of_a_purge_ends_with_its_time() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats, None).await;
    let key = store.key("a").unwrap();
    key.put(&1).await.unwrap();
    key.with_ttl(SECOND).purge().await.unwrap();
    assert!(key.get().await.unwrap().is_none());
    assert_eq!(nats.messages("KV_b", "$KV.b.>").await, 1);
    until("the mark ends", async || {
        nats.messages("KV_b", "$KV.b.>").await == 0
    })
    .await;
}

#[tokio::test]
async fn a_time_below_that_of_the_limit_markers_is_raised_to_it_where_there_is_a_history() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats, Some(60 * SECOND)).await;
    let key = store.key("a").unwrap();
    key.with_ttl(2 * SECOND).create(&1).await.unwrap();
    let stream = nats.js.get_stream("KV_b").await.unwrap();
    let stored = stream.get_last_raw_message_by_subject("$KV.b.a").await;
    let stored = stored.unwrap().headers;
    // As the guide says: the server does that, and does not tell it.
    assert_eq!(stored.get("Nats-TTL").map(|ttl| ttl.as_str()), Some("60"));
}

#[tokio::test]
async fn what_cannot_be_given_a_time_says_why_and_writes_nothing() {
    let nats = Nats::start().await;
    let store = bucket(&nats, None).await;
    let key = store.key("a").unwrap();
    let short = key.with_ttl(Duration::from_millis(900));
    assert_eq!(rule(short.create(&1).await), TtlRule::TooShort);
    assert_eq!(rule(short.purge().await), TtlRule::TooShort);
    let cut = key.with_ttl(Duration::from_millis(1900));
    assert_eq!(
        rule(cut.create(&1).await),
        TtlRule::NotWholeSeconds { seconds: 1 }
    );
    let whole = key.with_ttl(SECOND);
    assert_eq!(rule(whole.put(&1).await), TtlRule::OnPut);
    assert_eq!(rule(whole.update(&1, 0).await), TtlRule::OnPut);
    assert_eq!(nats.messages("KV_b", "$KV.b.>").await, 0);
}

#[tokio::test]
async fn a_bucket_without_times_to_live_names_the_setting() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    nats.kv_bucket("b").await;
    let store = KvStore::<u32>::bind(nats.js.clone(), "b").unwrap();
    let key = store.key("a").unwrap();
    let refused = key.with_ttl(SECOND).create(&1).await;
    let text = refused.as_ref().unwrap_err().to_string();
    assert!(
        text.contains("limit_markers") && text.contains("allow_msg_ttl"),
        "{text}"
    );
    assert_eq!(rule(refused), TtlRule::Disabled);
    assert!(key.get().await.unwrap().is_none());
}

#[tokio::test]
async fn a_watch_hears_of_the_end_where_there_are_limit_markers() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats, Some(5 * SECOND)).await;
    let key = store.key("a").unwrap();
    let mut watch = store.watch().await.unwrap();
    key.with_ttl(SECOND).create(&1).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match soon("a change", watch.next()).await.unwrap().unwrap() {
            WatchEvent::InitialDone => seen.push("done"),
            WatchEvent::Change(change) => seen.push(match change.operation {
                Operation::Put(1) => "put",
                Operation::Purge => "end",
                other => panic!("{other:?}"),
            }),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["done", "put", "end"]);
    // The server's mark is no value, and the key can be created over it.
    assert!(key.get().await.unwrap().is_none());
    key.create(&2).await.unwrap();
}

/// Messages that an operator removes leave a mark of the server's, too: what it says is read.
#[tokio::test]
async fn a_marker_reason_is_read_in_every_way_of_reading() {
    use futures_util::TryStreamExt as _;
    let nats = Nats::start().await;
    let store = bucket(&nats, None).await;
    for (key, reason) in [
        ("aged", "MaxAge"),
        ("purged", "Purge"),
        ("removed", "Remove"),
    ] {
        store.key(key).unwrap().put(&1).await.unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Marker-Reason", reason);
        let subject = format!("$KV.b.{key}");
        let sent = nats
            .js
            .publish_with_headers(subject, headers, "".into())
            .await;
        sent.unwrap().await.unwrap();
        assert!(store.key(key).unwrap().get().await.unwrap().is_none());
        let history = store.key(key).unwrap().history().await.unwrap();
        match &history.last().unwrap().operation {
            Operation::Purge => assert_ne!(reason, "Remove"),
            Operation::Delete => assert_eq!(reason, "Remove"),
            other => panic!("{other:?}"),
        }
    }
    assert!(store.all().get_all().await.unwrap().is_empty());
    assert!(
        store
            .get_many(["aged", "removed"])
            .await
            .unwrap()
            .is_empty()
    );
    let keys: Vec<String> = store.keys().await.unwrap().try_collect().await.unwrap();
    assert!(keys.is_empty());
}
