//! Key-value buckets, shared with other clients.

use crate::{decode, each_language, encode};
use async_nats::jetstream::kv::Config;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{KvStore, Operation, StoreError, WatchEvent};
use nats_service_tests::foreign::Peer;
use nats_service_tests::{Nats, soon, until};
use serde_json::{Value, json};
use std::time::Duration;

each_language! {
    values_are_the_same_on_both_sides
    histories_and_markers_are_the_same_on_both_sides
    a_create_over_their_marker_and_theirs_over_ours_succeed
    a_conflict_is_one_on_both_sides
    what_they_let_expire_is_gone_here
    what_we_let_expire_is_gone_there
}

fn store(nats: &Nats) -> KvStore<String> {
    KvStore::bind(nats.js.clone(), "b").expect("a store")
}

/// A value of theirs that is one of ours: JSON.
fn text(value: &str) -> String {
    encode(json!(value).to_string())
}

async fn values_are_the_same_on_both_sides(mut peer: Peer, nats: Nats) {
    peer.must("kv_make", json!({"bucket": "b"})).await;
    let store = store(&nats);
    let keys = ["a", "user.abc.name", "a/b=c_d-e", "UPPER.case"];
    for key in keys {
        let theirs = peer
            .must(
                "kv_put",
                json!({"bucket": "b", "key": key, "value": text("from there")}),
            )
            .await;
        let entry = store.key(key).unwrap().get().await.unwrap().unwrap();
        assert_eq!(json!(entry.revision), theirs);
        assert_eq!(entry.value(), "from there");
        let ours = store.key(key).unwrap().put(&"from here ü".to_owned()).await;
        let entry = peer
            .must("kv_get", json!({"bucket": "b", "key": key}))
            .await;
        assert_eq!(entry["revision"], ours.unwrap());
        assert_eq!(decode(&entry["value"]), "\"from here ü\"".as_bytes());
    }
    let mut listed: Vec<String> =
        serde_json::from_value(peer.must("kv_keys", json!({"bucket": "b"})).await).unwrap();
    listed.sort();
    let mut ours: Vec<String> = store.keys().await.unwrap().try_collect().await.unwrap();
    ours.sort();
    assert_eq!(listed, ours);
    // A bucket of ours, an empty one.
    nats.kv_bucket("mine").await;
    assert_eq!(
        peer.must("kv_keys", json!({"bucket": "mine"})).await,
        json!([])
    );
    let missing = peer.must("kv_get", json!({"bucket": "mine", "key": "a"}));
    assert_eq!(missing.await, Value::Null);
}

async fn histories_and_markers_are_the_same_on_both_sides(mut peer: Peer, nats: Nats) {
    nats.kv_bucket("b").await;
    let store = store(&nats);
    let at = |key: &str| json!({"bucket": "b", "key": key});
    // Ours: put, delete, put.
    let ours = store.key("ours").unwrap();
    let mut revisions = vec![ours.put(&"1".to_owned()).await.unwrap()];
    revisions.push(ours.delete().await.unwrap());
    assert_eq!(peer.must("kv_get", at("ours")).await, Value::Null);
    revisions.push(ours.put(&"3".to_owned()).await.unwrap());
    let expected: Vec<_> = revisions
        .iter()
        .zip([("\"1\"", "PUT"), ("", "DEL"), ("\"3\"", "PUT")])
        .map(|(revision, (value, operation))| {
            json!({"value": encode(value), "revision": revision, "operation": operation})
        })
        .collect();
    assert_eq!(peer.must("kv_history", at("ours")).await, json!(expected));
    let purged = ours.purge().await.unwrap();
    assert_eq!(
        peer.must("kv_history", at("ours")).await,
        json!([{"value": "", "revision": purged, "operation": "PURGE"}])
    );
    assert_eq!(peer.must("kv_get", at("ours")).await, Value::Null);
    // Theirs: the same.
    let put = |value| json!({"bucket": "b", "key": "theirs", "value": text(value)});
    let theirs = store.key("theirs").unwrap();
    peer.must("kv_put", put("1")).await;
    peer.must("kv_delete", at("theirs")).await;
    assert!(theirs.get().await.unwrap().is_none());
    peer.must("kv_put", put("3")).await;
    let history = theirs.history().await.unwrap();
    let seen: Vec<_> = history.iter().map(|change| &change.operation).collect();
    assert!(
        matches!(&seen[..], [Operation::Put(one), Operation::Delete, Operation::Put(three)] if one == "1" && three == "3"),
        "{seen:?}"
    );
    peer.must("kv_purge", at("theirs")).await;
    let history = theirs.history().await.unwrap();
    assert!(
        matches!(&history[..], [only] if matches!(only.operation, Operation::Purge)),
        "{history:?}"
    );
    assert!(theirs.get().await.unwrap().is_none());
    let keys: Vec<String> = store.keys().await.unwrap().try_collect().await.unwrap();
    assert!(keys.is_empty());
}

async fn a_create_over_their_marker_and_theirs_over_ours_succeed(mut peer: Peer, nats: Nats) {
    nats.kv_bucket("b").await;
    let store = store(&nats);
    let at = json!({"bucket": "b", "key": "a"});
    let create = json!({"bucket": "b", "key": "a", "value": text("theirs")});
    let key = store.key("a").unwrap();
    for operation in ["kv_delete", "kv_purge"] {
        key.create(&"ours".to_owned()).await.unwrap();
        peer.must(operation, at.clone()).await;
    }
    key.create(&"ours".to_owned()).await.unwrap();
    key.delete().await.unwrap();
    peer.must("kv_create", create.clone()).await;
    key.purge().await.unwrap();
    peer.must("kv_create", create.clone()).await;
    assert_eq!(key.get().await.unwrap().unwrap().value(), "theirs");
    assert!(peer.ask("kv_create", create).await.is_err());
    let refused = key.create(&"ours".to_owned()).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
}

async fn a_conflict_is_one_on_both_sides(mut peer: Peer, nats: Nats) {
    nats.kv_bucket("b").await;
    let key = store(&nats).key("a").unwrap();
    let first = key.put(&"1".to_owned()).await.unwrap();
    let update = |revision: u64| json!({"bucket": "b", "key": "a", "value": text("2"), "revision": revision});
    let second = peer.must("kv_update", update(first)).await;
    match key.update(&"3".to_owned(), first).await {
        Err(StoreError::Conflict { current, .. }) => {
            assert_eq!(current, second.as_u64());
        }
        other => panic!("{other:?}"),
    }
    assert!(peer.ask("kv_update", update(first)).await.is_err());
    assert_eq!(key.get().await.unwrap().unwrap().value(), "2");
}

/// A bucket of theirs and one of ours, whose keys end with a mark that stays for a second. The server keeps no entry for less
/// time than that.
async fn with_markers(peer: &mut Peer, nats: &Nats) -> [&'static str; 2] {
    peer.must("kv_make", json!({"bucket": "theirs", "marker_ttl": 1}))
        .await;
    let config = Config {
        bucket: "ours".to_owned(),
        limit_markers: Some(Duration::from_secs(1)),
        ..Default::default()
    };
    nats.js.create_key_value(config).await.expect("a bucket");
    ["theirs", "ours"]
}

async fn what_they_let_expire_is_gone_here(mut peer: Peer, nats: Nats) {
    let buckets = with_markers(&mut peer, &nats).await;
    for bucket in buckets {
        let store = KvStore::<String>::bind(nats.js.clone(), bucket).unwrap();
        let key = store.key("a").unwrap();
        let mut changes = key.watch().updates_only().await.unwrap();
        let create = json!({"bucket": bucket, "key": "a", "value": text("soon gone"), "ttl": 1});
        peer.must("kv_create", create).await;
        let mut operations = Vec::new();
        while operations.len() < 2 {
            match soon("an event", changes.next()).await {
                Some(Ok(WatchEvent::Change(change))) => operations.push(change.operation),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        // The server leaves a marker, which says that the time was up.
        assert!(
            matches!(&operations[..], [Operation::Put(value), Operation::Purge] if value == "soon gone"),
            "{operations:?}"
        );
        assert!(key.get().await.unwrap().is_none());
        let at = json!({"bucket": bucket, "key": "a"});
        // nats-py's `get` takes the marker for an empty value.
        let theirs = peer.must("kv_get", at).await;
        assert!(
            theirs.is_null() || decode(&theirs["value"]).is_empty(),
            "{theirs}"
        );
    }
}

async fn what_we_let_expire_is_gone_there(mut peer: Peer, nats: Nats) {
    let buckets = with_markers(&mut peer, &nats).await;
    for bucket in buckets {
        let store = KvStore::<String>::bind(nats.js.clone(), bucket).unwrap();
        let at = |key: &str| json!({"bucket": bucket, "key": key});
        // What is to last a while has its value there, and its time.
        let long = store.key("long").unwrap();
        let lasting = long.with_ttl(Duration::from_secs(3600));
        let revision = lasting.create(&"kept".to_owned()).await.unwrap();
        let entry = peer.must("kv_get", at("long")).await;
        assert_eq!(entry["revision"], revision);
        assert_eq!(decode(&entry["value"]), b"\"kept\"");
        assert_eq!(peer.must("kv_ttl", at("long")).await, json!("3600s"));

        // What ends is a marker there as it is here.
        let short = store.key("short").unwrap();
        let mut changes = short.watch().updates_only().await.unwrap();
        let ending = short.with_ttl(Duration::from_secs(1));
        ending.create(&"soon gone".to_owned()).await.unwrap();
        let mut ended = 0;
        while ended == 0 {
            match soon("an event", changes.next()).await {
                Some(Ok(WatchEvent::Change(change))) if change.value().is_none() => {
                    ended = change.revision;
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        let theirs = peer.must("kv_get", at("short")).await;
        // nats-py's `get` takes the marker for an empty value.
        assert!(
            theirs.is_null() || decode(&theirs["value"]).is_empty(),
            "{theirs}"
        );

        // A mark of a purge that ends leaves nothing.
        let marked = store.key("marked").unwrap();
        marked.put(&"gone".to_owned()).await.unwrap();
        let purging = marked.with_ttl(Duration::from_secs(1));
        purging.purge().await.unwrap();
        assert_eq!(peer.must("kv_get", at("marked")).await, Value::Null);
        // Seen from here: a history that is asked there in the moment in which its one entry ends waits for that entry.
        until("the mark's end", async || {
            let history = marked.history().await.unwrap();
            history.is_empty()
        })
        .await;
        assert_eq!(peer.must("kv_history", at("marked")).await, json!([]));
        assert_eq!(peer.must("kv_get", at("marked")).await, Value::Null);
    }
}
