//! What is kept of an answer, and when.

use nats_service::{CallError, Code, WriteError};
use nats_service_tests::desk::{self, Act, DeskError, KeeperClient, Task, ask, doing, task};
use nats_service_tests::{Nats, PATIENCE, soon, until};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

fn client(nats: &Nats) -> KeeperClient {
    KeeperClient::new(nats.client.clone()).with_jetstream(nats.js.clone())
}

fn code(ended: &Result<Task, CallError<DeskError>>) -> Option<Code> {
    ended.as_ref().err().map(CallError::code)
}

/// The bucket, as its attribute would make it.
async fn make_kept(nats: &Nats, max_value_size: i32) {
    let config = async_nats::jetstream::kv::Config {
        bucket: "kept".to_owned(),
        history: 64,
        max_value_size,
        ..Default::default()
    };
    nats.js.create_key_value(config).await.expect("a bucket");
}

#[tokio::test]
async fn an_answer_that_was_given_is_in_its_bucket_at_the_end() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let client = client(&nats);
    let mut calls = JoinSet::new();
    for i in 0..500 {
        let call = client.keep(doing(&i.to_string(), Act::Answer, "kept"));
        calls.spawn(async move { call.await });
    }
    let mut given = Vec::new();
    while let Some(ended) = soon("an answer", calls.join_next()).await {
        given.push(ended.unwrap().unwrap());
    }
    let report = keeper
        .running
        .shutdown(PATIENCE)
        .await
        .expect("nothing is left");
    assert!(report.unwritten.is_empty() && report.cut_short == 0);
    let kept = client.stores().unwrap().keep();
    for answer in given {
        let entry = kept.at(&answer.id).unwrap().get().await.unwrap().unwrap();
        let codec = entry.headers.get("Content-Type").unwrap();
        assert_eq!(
            (entry.value(), codec.as_str()),
            (&answer, "application/json")
        );
    }
}

#[tokio::test]
async fn answers_of_one_key_are_kept_in_the_order_in_which_they_were_given() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let client = client(&nats);
    for i in 0..60 {
        client
            .keep(doing("a", Act::Answer, &i.to_string()))
            .await
            .unwrap();
    }
    keeper.running.shutdown(PATIENCE).await.unwrap();
    let history = client
        .stores()
        .unwrap()
        .keep()
        .at("a")
        .unwrap()
        .history()
        .await
        .unwrap();
    let texts: Vec<_> = history
        .into_iter()
        .map(|change| match change.operation {
            nats_service::Operation::Put(task) => task.text,
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<_> = (0..60).map(|i| i.to_string()).collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn an_answer_that_is_written_first_comes_with_its_revision_and_is_there() {
    let nats = Nats::start().await;
    let _keeper = desk::keeper(&nats).await;
    let client = client(&nats);
    let bucket = nats.js.get_key_value("sure").await.unwrap();
    for i in 1..=50 {
        let asked = doing("a", Act::Answer, &i.to_string());
        let reply = client.keep_surely(&asked).reply().await.unwrap();
        let entry = bucket.entry("task.a").await.unwrap().unwrap();
        assert_eq!((reply.value, reply.revision), (asked.clone(), Some(i)));
        assert_eq!(entry.revision, i);
        assert_eq!(serde_json::from_slice::<Task>(&entry.value).unwrap(), asked);
    }
    assert_eq!(client.keep(task("a")).reply().await.unwrap().revision, None);
}

#[tokio::test]
async fn what_is_not_to_be_written_is_not() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let client = client(&nats);
    client.keep_not(task("a")).await.unwrap();
    for act in [Act::Fail, Act::Panic, Act::PanicLater] {
        let failing = doing("a", act, "");
        client.keep(&failing).await.unwrap_err();
        client.keep_surely(&failing).await.unwrap_err();
        client.render(&failing).await.unwrap_err();
        client.forget(&failing).await.unwrap_err();
    }
    ask(&nats.client, "keeper.keep", "garbage").await;
    // An answer that cannot be sent is a failed call.
    let huge = doing("a", Act::Grow(2 << 20), "");
    assert_eq!(
        code(&client.keep(&huge).await),
        Some(Code::ResourceExhausted)
    );
    assert_eq!(
        code(&client.keep_surely(&huge).await),
        Some(Code::ResourceExhausted)
    );
    keeper.running.shutdown(PATIENCE).await.unwrap();
    for stream in ["KV_kept", "KV_sure", "KV_unkept", "OBJ_large"] {
        assert_eq!(nats.messages(stream, ">").await, 0, "{stream}");
    }
    // The store is there all the same.
    let stores = client.stores().unwrap();
    stores
        .keep_not()
        .at("a")
        .unwrap()
        .put(&task("a"))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_eviction_removes_the_entry_and_a_failed_one_does_not() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let client = client(&nats);
    for id in ["a", "b"] {
        client.keep(task(id)).await.unwrap();
    }
    client.forget(task("a")).await.unwrap();
    client.forget(doing("b", Act::Fail, "")).await.unwrap_err();
    client.forget(task("never-there")).await.unwrap();
    keeper.running.shutdown(PATIENCE).await.unwrap();
    let kept = client.stores().unwrap().keep();
    assert!(kept.at("a").unwrap().get().await.unwrap().is_none());
    assert!(kept.at("b").unwrap().get().await.unwrap().is_some());
}

#[tokio::test]
async fn a_notification_is_kept_like_any_answer() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    for method in ["keep", "keep_surely", "render"] {
        let body = serde_json::to_vec(&task("a")).unwrap();
        nats.client
            .publish(format!("keeper.{method}"), body.into())
            .await
            .unwrap();
    }
    until("they were handled", async || keeper.worker.begun() == 3).await;
    keeper.running.shutdown(PATIENCE).await.unwrap();
    let stores = client(&nats).stores().unwrap();
    assert!(
        stores
            .keep()
            .at("a")
            .unwrap()
            .get()
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        stores
            .keep_surely()
            .at("a")
            .unwrap()
            .get()
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        stores
            .render()
            .at("a")
            .unwrap()
            .info()
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_first_is_unavailable_and_the_next_one_can() {
    let nats = Nats::start().await;
    let _keeper = desk::keeper(&nats).await;
    let client = client(&nats).with_timeout(PATIENCE);
    client.keep_surely(task("a")).await.unwrap();
    nats.js.delete_key_value("sure").await.unwrap();
    let ended = soon("an answer", client.keep_surely(task("b"))).await;
    assert_eq!(code(&ended), Some(Code::Unavailable), "{ended:?}");
    // Other methods do not mind.
    client.keep(task("b")).await.unwrap();
    let config = async_nats::jetstream::kv::Config {
        bucket: "sure".to_owned(),
        ..Default::default()
    };
    let bucket = nats.js.create_key_value(config).await.unwrap();
    let reply = soon("an answer", client.keep_surely(task("c")).reply())
        .await
        .unwrap();
    let entry = bucket.entry("task.c").await.unwrap().unwrap();
    assert_eq!(Some(entry.revision), reply.revision);
    // Who was told `Unavailable` was told the truth.
    assert!(bucket.entry("task.b").await.unwrap().is_none());
}

#[tokio::test]
async fn while_a_bucket_is_away_calls_go_on_until_the_bound_and_nothing_given_is_lost() {
    let nats = Nats::start().await;
    let keeper = desk::keeper_with(&nats, |server| {
        server
            .max_pending_writes(50, 1 << 20)
            .write_patience(Duration::from_millis(100))
    })
    .await;
    let client = client(&nats);
    nats.js.delete_key_value("kept").await.unwrap();
    for i in 0..50 {
        client.keep(task(&i.to_string())).await.expect("an answer");
    }
    for _ in 0..3 {
        let ended = soon("a refusal", client.keep(task("too-much"))).await;
        assert_eq!(code(&ended), Some(Code::ResourceExhausted));
    }
    // What is wrong with a request itself is no better later, and is told all the same.
    for (body, wrong) in [("{", "EOF"), (r#"{"id": "a.b", "text": ""}"#, "`id`")] {
        let refused = ask(&nats.client, "keeper.keep", body).await;
        let headers = refused.headers.expect("an error");
        assert_eq!(
            headers.get("Nats-Service-Error-Code").unwrap().as_str(),
            "400"
        );
        let text = headers.get("Nats-Service-Error").unwrap().as_str();
        assert!(text.contains(wrong), "{text}");
    }
    assert_eq!(keeper.worker.begun(), 50);
    // A bucket of its own is not concerned.
    client.keep_surely(task("a")).await.unwrap();

    make_kept(&nats, -1).await;
    until("there is room again", async || {
        client.keep(task("late")).await.is_ok()
    })
    .await;
    keeper
        .running
        .shutdown(PATIENCE)
        .await
        .expect("nothing is left");
    let kept = client.stores().unwrap().keep();
    for i in 0..50 {
        assert!(
            kept.at(i.to_string())
                .unwrap()
                .get()
                .await
                .unwrap()
                .is_some(),
            "{i}"
        );
    }
    assert!(kept.at("late").unwrap().get().await.unwrap().is_some());
}

#[tokio::test]
async fn an_answer_that_can_never_be_stored_goes_to_the_hook_and_holds_nothing_up() {
    let nats = Nats::start().await;
    make_kept(&nats, 1000).await;
    let failed = Arc::new(Mutex::new(Vec::new()));
    let hook = failed.clone();
    let keeper = desk::keeper_with(&nats, |server| {
        server.on_failed_write(move |write| hook.lock().unwrap().push(write.clone()))
    })
    .await;
    let client = client(&nats);
    let answer = client
        .keep(doing("large", Act::Grow(5000), ""))
        .await
        .unwrap();
    client.keep(task("small")).await.unwrap();
    let report = keeper
        .running
        .shutdown(PATIENCE)
        .await
        .expect("nothing is left");
    assert!(report.unwritten.is_empty());
    let failed = std::mem::take(&mut *failed.lock().unwrap());
    let [write] = &failed[..] else {
        panic!("{failed:?}")
    };
    assert_eq!((&*write.bucket, write.key.as_str()), ("kept", "task.large"));
    assert!(
        matches!(write.error, WriteError::Refused { .. }),
        "{:?}",
        write.error
    );
    let value = write.value.as_ref().expect("the value");
    assert_eq!(serde_json::from_slice::<Task>(value).unwrap(), answer);
    let kept = client.stores().unwrap().keep();
    assert!(kept.at("small").unwrap().get().await.unwrap().is_some());
    assert!(kept.at("large").unwrap().get().await.unwrap().is_none());
}
