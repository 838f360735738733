//! Views, shared watches, the pipelined writer and transactions: all goes with their rights, and without any one of them it
//! does not, unless the table says that it is for tidiness or speed.

use super::{DENIED, Note, as_user, note, permissions, server, user, user_without};
use async_nats::jetstream;
use futures_util::StreamExt as _;
use nats_service::{ConnectionEvents, KvStore, Operation, TransactionError, WatchEvent};
use nats_service_tests::{PATIENCE, soon, too_old, until};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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
    let allowed = json!({"allow_atomic": !too_old(2).await, "allow_batched": !too_old(4).await});
    allow(&operator, &allowed).await;

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

/// Changes these settings of the bucket's stream.
async fn allow(operator: &jetstream::Context, settings: &Value) {
    let ask = async |action: &str, body: &Value| {
        let answer: Value = operator.request(action.to_owned(), body).await.expect("it");
        assert!(answer["error"].is_null(), "{answer}");
        answer
    };
    let mut config = ask("STREAM.INFO.KV_notes", &json!({})).await["config"].take();
    for (name, value) in settings.as_object().expect("settings") {
        // A server that does not know a setting is not asked to switch it on.
        if *value == true {
            config[name] = value.clone();
        }
    }
    ask("STREAM.UPDATE.KV_notes", &config).await;
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
async fn a_pipelined_writer_reads_nothing_whether_its_writes_go_in_batches_or_one_by_one() {
    let role = "A pipelined writer of a KV bucket";
    every_right_is_needed(role, async |_, store| {
        let Ok(writer) = store.writer().await else {
            return false;
        };
        // Few at first, and then so many that they go in batches.
        for many in [10, 5_000] {
            for i in 0..many {
                let key = format!("note.{i}");
                writer.put(key, &note("a", "1")).await.expect("room");
            }
            writer.delete("note.0").await.expect("room");
        }
        writer.drain(DENIED * 4).await.unwritten.is_empty()
    })
    .await;
}

/// What a writer with these roles was denied when its batches were lost with the server, after seeing that everything is
/// stored in order, if perhaps twice.
async fn denied_after_a_kill(roles: &[&str]) -> Vec<String> {
    let server = server(&[user("writer", roles)]).await;
    let operator = as_user(&server, "operator").await;
    allow(&operator, &json!({"allow_batched": true})).await;
    let events = ConnectionEvents::new();
    let options = async_nats::ConnectOptions::with_user_and_password("writer".into(), "p".into());
    let options = options.reconnect_delay_callback(|_| DENIED / 20);
    let client = events.install(options).connect(server.url()).await;
    let mut js = jetstream::new(client.expect("a connection"));
    js.set_timeout(DENIED);
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let writer = store.writer().await.expect("a writer");
    let stop = AtomicBool::new(false);
    // More than may be on their way at once: else a write waits for the one before of its key, and so goes by itself.
    let keys = || (0..10_000).map(|i| format!("note.{i}"));
    let writing = async {
        let mut round = 0;
        while !stop.load(Relaxed) {
            round += 1;
            for key in keys() {
                let value = note("a", &round.to_string());
                writer.put(key, &value).await.expect("room");
            }
        }
        round
    };
    let killing = async {
        until("some are written", async || writer.stats().written > 2_000).await;
        server.kill().await.expect("a kill");
        stop.store(true, Relaxed);
        server.restart().await.expect("a restart");
    };
    let (last, ()) = tokio::join!(writing, killing);
    assert!(writer.drain(PATIENCE).await.unwritten.is_empty());

    let operator = as_user(&server, "operator").await;
    let store = KvStore::<Note>::bind(operator, "notes").expect("a name");
    for key in keys().step_by(200) {
        let history = store.key(&key).expect("a key").history().await;
        let history = history.expect("a history").into_iter();
        let rounds = history.map(|change| match change.operation {
            Operation::Put(note) => note.text.parse::<u32>().expect("a number"),
            other => panic!("{other:?}"),
        });
        let rounds: Vec<_> = rounds.collect();
        assert!(
            rounds.is_sorted() && rounds.last() == Some(&last),
            "{key}: {rounds:?}"
        );
    }
    let denials = events.denials();
    denials
        .iter()
        .map(|denial| denial.subject().to_owned())
        .collect()
}

#[tokio::test]
async fn a_writer_in_batches_may_ask_what_is_stored_of_one_that_was_lost() {
    if too_old(4).await {
        return;
    }
    let alone = "A pipelined writer of a KV bucket";
    let asking = "A writer in batches";
    assert_eq!(denied_after_a_kill(&[alone, asking]).await, [""; 0]);
    let mut denied = denied_after_a_kill(&[alone]).await;
    denied.dedup();
    assert_eq!(denied, permissions(asking).0);
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
            let transaction = store.transaction().timeout(DENIED * 6);
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
