//! Views, shared watches, the pipelined writer and transactions: all goes with their rights, and without any one of them it
//! does not, unless the table says that it is for tidiness or speed.

use super::{DENIED, Note, as_user, note, permissions, server, user, user_without};
use async_nats::jetstream;
use futures_util::StreamExt as _;
use nats_service::{KvStore, TransactionError, WatchEvent};
use nats_service_tests::{PATIENCE, soon, too_old};

/// Does something as a user who has the role, and as users who lack one of its rights each.
async fn every_right_is_needed(
    role: &str,
    works: impl AsyncFn(&jetstream::Context, KvStore<Note>) -> bool,
) {
    let (publish, _) = permissions(role);
    let lacking = |i: usize| format!("lacks-{i}");
    let mut users = vec![user("all", &[role])];
    for (i, right) in publish.iter().enumerate() {
        users.push(user_without(&lacking(i), &[role], Some(right)));
    }
    let server = server(&users).await;
    let operator = as_user(&server, "operator").await;
    let stream = operator.get_stream("KV_notes").await.expect("the stream");
    let mut config = stream.cached_info().config.clone();
    config.allow_atomic_publish = !too_old(2).await;
    operator.update_stream(config).await.expect("an update");

    let as_store = async |name: &str| {
        let mut js = as_user(&server, name).await;
        js.set_timeout(DENIED);
        KvStore::<Note>::bind(js, "notes").expect("a name")
    };
    let all = as_store("all").await;
    assert!(soon("it", works(&operator, all)).await, "{role}");
    for (i, right) in publish.iter().enumerate() {
        let free = right.contains("CONSUMER.DELETE") || right.starts_with("$JS.FC.");
        let store = as_store(&lacking(i)).await;
        let works = tokio::time::timeout(DENIED * 8, works(&operator, store)).await;
        assert_eq!(works.unwrap_or(false), free, "{role}, without `{right}`");
    }
}

async fn write(operator: &jetstream::Context, key: &str) -> u64 {
    let store = KvStore::<Note>::bind(operator.clone(), "notes").expect("a name");
    let key = store.key(key).expect("a key");
    key.put(&note("a", "1")).await.expect("a write")
}

#[tokio::test]
async fn a_view_takes_the_rights_of_a_watch_and_no_others() {
    every_right_is_needed("A watcher of a KV bucket", async |operator, store| {
        let before = write(operator, "note.a").await;
        let Ok(view) = store.view().await else {
            return false;
        };
        assert!(view.revision() >= before);
        let after = write(operator, "note.b").await;
        view.wait_for(after).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn watches_that_share_a_consumer_take_no_more() {
    every_right_is_needed("A watcher of a KV bucket", async |operator, store| {
        write(operator, "note.a").await;
        let mut watches = Vec::new();
        for prefix in ["note", "other"] {
            let Ok(watch) = store.under(prefix).expect("a prefix").watch().await else {
                return false;
            };
            watches.push(watch);
        }
        // The second one made the consumer of the first anew.
        write(operator, "other.a").await;
        write(operator, "note.b").await;
        for (watch, key) in watches.iter_mut().zip(["note.b", "other.a"]) {
            loop {
                match watch.next().await {
                    Some(Ok(WatchEvent::Change(change))) if change.key == key => break,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return false,
                }
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn a_pipelined_writer_reads_nothing() {
    let role = "A pipelined writer of a KV bucket";
    every_right_is_needed(role, async |_, store| {
        let Ok(writer) = store.writer().await else {
            return false;
        };
        for i in 0..100 {
            let key = format!("note.{}", i % 50);
            writer.put(key, &note("a", "1")).await.expect("room");
        }
        writer.delete("note.0").await.expect("room");
        writer.drain(DENIED).await.unwritten.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_transaction_commits_and_names_what_is_in_its_way() {
    if too_old(2).await {
        return;
    }
    let role = "A writer of several keys at once";
    every_right_is_needed(role, async |operator, store| {
        let revision = write(operator, "note.a").await;
        let (a, b) = (store.key("note.a").unwrap(), store.key("note.b").unwrap());
        let both = |revision| {
            let transaction = store.transaction().timeout(PATIENCE / 10);
            transaction
                .update(&a, &note("a", "2"), revision)
                .put(&b, &note("b", "2"))
        };
        let committed = both(revision).commit().await;
        let refused = both(revision).commit().await;
        let named = matches!(refused, Err(TransactionError::Conflict { conflicts }) if conflicts.len() == 1);
        committed.is_ok() && named
    })
    .await;
}
