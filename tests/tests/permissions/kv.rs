//! Readers, writers and tidiers of KV buckets.

use super::{DENIED, Note, as_user, note, server, user, user_without};
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{KvStore, Newer, ReadLevel, StoreError, WatchEvent};
use nats_service_tests::soon;
use std::time::Duration;

#[tokio::test]
async fn a_reader_of_a_kv_bucket_needs_no_more_and_cannot_write() {
    let server = server(&[user("reader", &["A reader of a KV bucket"])]).await;
    let js = as_user(&server, "operator").await;
    let writer = KvStore::<Note>::bind(js, "notes").expect("a name");
    let one = writer.key("note.a").expect("a key");
    let first = one.put(&note("a", "1")).await.expect("a write");
    one.put(&note("a", "2")).await.expect("a write");

    let mut js = as_user(&server, "reader").await;
    let store = KvStore::<Note>::bind(js.clone(), "notes").expect("a name");
    let key = store.key("note.a").expect("a key");
    let get = soon("get", key.get()).await.expect("a read");
    assert_eq!(get.map(|entry| entry.into_value()), Some(note("a", "2")));
    let at = soon("get_at", key.get_at(first)).await.expect("a read");
    assert_eq!(at.map(|entry| entry.into_value()), Some(note("a", "1")));
    assert_eq!(soon("history", key.history()).await.expect("it").len(), 2);
    let keys = soon("keys", store.keys()).await.expect("keys");
    let keys: Vec<String> = soon("all", keys.try_collect::<Vec<_>>())
        .await
        .expect("keys");
    assert_eq!(keys, ["note.a"]);
    assert_eq!(soon("status", store.status()).await.expect("it").values, 2);
    let many = store.get_many(["note.a", "note.b"]);
    assert_eq!(soon("many", many.into_future()).await.expect("it").len(), 1);
    let all = store.all();
    assert_eq!(soon("all", all.get_all()).await.expect("it").len(), 1);
    let newer = soon("newer", key.get_if_newer(first)).await.expect("it");
    assert!(matches!(newer, Newer::Entry(_)));
    for level in [ReadLevel::Leader, ReadLevel::AtLeast(first + 1)] {
        let read = soon("a level", key.read(level)).await.expect("it");
        assert_eq!(read.map(|entry| entry.revision), Some(first + 1));
    }

    let mut watch = soon("watch", store.watch().into_future())
        .await
        .expect("it");
    let mut changes = 0;
    while let Some(event) = soon("an event", watch.next()).await {
        match event.expect("a change") {
            WatchEvent::InitialDone => {
                one.put(&note("a", "3")).await.expect("a write");
            }
            WatchEvent::Change(_) => changes += 1,
            _ => {}
        }
        if changes == 2 {
            break;
        }
    }

    js.set_timeout(DENIED);
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let key = store.key("note.a").expect("a key");
    let denied = soon("a denied write", key.put(&note("a", "4"))).await;
    assert!(matches!(denied, Err(StoreError::Timeout)), "{denied:?}");
    let now = one.get().await.expect("a read").expect("an entry");
    assert_eq!(now.into_value().text, "3");
}

#[tokio::test]
async fn a_reader_that_confirms_may_write_the_mark_and_nothing_else() {
    let roles = ["A reader of a KV bucket", "A reader that confirms"];
    let server = server(&[user("reader", &roles)]).await;
    let js = as_user(&server, "operator").await;
    let writer = KvStore::<Note>::bind(js, "notes").expect("a name");
    let one = writer.key("note.a").expect("a key");
    one.put(&note("a", "1")).await.expect("a write");

    let mut js = as_user(&server, "reader").await;
    js.set_timeout(DENIED);
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let key = store.key("note.a").expect("a key");
    let read = soon("a read", key.read(ReadLevel::Confirmed)).await;
    let read = read.expect("it is allowed").map(|entry| entry.into_value());
    assert_eq!(read, Some(note("a", "1")));
    let denied = soon("a denied write", key.put(&note("a", "2"))).await;
    assert!(matches!(denied, Err(StoreError::Timeout)), "{denied:?}");
}

#[tokio::test]
async fn a_tidier_of_a_kv_bucket_removes_old_marks() {
    let roles = ["A reader of a KV bucket", "A tidier of a KV bucket"];
    let server = server(&[user("tidier", &roles)]).await;
    let js = as_user(&server, "operator").await;
    let writer = KvStore::<Note>::bind(js, "notes").expect("a name");
    let one = writer.key("note.a").expect("a key");
    one.delete().await.expect("a write");
    let js = as_user(&server, "tidier").await;
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let removed = soon("a tidying", store.all().purge_deletes(Duration::ZERO)).await;
    assert_eq!(removed.expect("it is allowed"), 1);
}

#[tokio::test]
async fn a_writer_of_a_kv_bucket_can_do_what_there_is_to_do_with_a_key() {
    let roles = ["A reader of a KV bucket", "A writer of a KV bucket"];
    let server = server(&[user("writer", &roles)]).await;
    let js = as_user(&server, "writer").await;
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let key = store.key("note.a").expect("a key");
    let all = async {
        let first = key.create(&note("a", "1")).await?;
        let second = key.update(&note("a", "2"), first).await?;
        let conflict = key.update(&note("a", "3"), first).await;
        let told = matches!(conflict, Err(StoreError::Conflict { current, .. }) if current == Some(second));
        assert!(told, "{conflict:?}");
        key.roll_back(first).await?;
        key.delete().await?;
        key.create(&note("a", "4")).await?;
        key.purge().await?;
        assert!(key.get().await?.is_none());
        Ok::<(), StoreError>(())
    };
    soon("all operations", all).await.expect("all are allowed");
}

#[tokio::test]
async fn without_flow_control_many_entries_come_once_each_and_the_watch_goes_on() {
    let roles = ["A reader of a KV bucket"];
    let server = server(&[user_without("reader", &roles, Some("$JS.FC."))]).await;
    let js = as_user(&server, "operator").await;
    let writer = KvStore::<Note>::bind(js, "notes").expect("a name");
    // Three windows, in a bucket that keeps older revisions, which a listing must not bring.
    let key = |i: u32| format!("note.{i:03}");
    let text = "x".repeat(50_000);
    for i in 0..120 {
        let one = writer.key(key(i)).expect("a key");
        one.put(&note("old", &text)).await.expect("a write");
        one.put(&note("new", &text)).await.expect("a write");
    }
    // And some that are written again at the end.
    for i in 0..10 {
        let one = writer.key(key(i * 12)).expect("a key");
        one.put(&note("new", &text)).await.expect("a write");
    }
    let all: Vec<String> = (0..120).map(key).collect();
    let in_order = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };

    let js = as_user(&server, "reader").await;
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let entries = soon("entries", store.entries()).await.expect("entries");
    let entries: Vec<_> = soon("all entries", entries.try_collect())
        .await
        .expect("it");
    assert!(entries.iter().all(|entry| entry.value().id == "new"));
    let keys = entries.iter().map(|entry| entry.key().to_owned()).collect();
    assert_eq!(in_order(keys), all);
    let keys = soon("keys", store.keys()).await.expect("keys");
    let keys: Vec<String> = soon("all keys", keys.try_collect()).await.expect("keys");
    assert_eq!(in_order(keys), all);

    let mut watch = soon("a watch", store.watch().into_future())
        .await
        .expect("it");
    let (mut keys, mut revision) = (Vec::new(), 0);
    loop {
        match soon("an event", watch.next()).await.expect("no end") {
            Ok(WatchEvent::Change(change)) => {
                assert!(change.revision > revision, "nothing comes twice");
                revision = change.revision;
                assert_eq!(change.value().map(|note| &*note.id), Some("new"));
                keys.push(change.key);
            }
            Ok(WatchEvent::InitialDone) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(in_order(keys), all);
    for i in 0..120 {
        let one = writer.key(key(i)).expect("a key");
        one.put(&note("newer", &text)).await.expect("a write");
        match soon("a change", watch.next()).await.expect("no end") {
            Ok(WatchEvent::Change(change)) => {
                assert_eq!(change.key, key(i));
                assert_eq!(change.value().map(|note| &*note.id), Some("newer"));
            }
            other => panic!("{other:?}"),
        }
    }
}
