//! A client of a service in this process: what a server would do to a call is done to it, but there is none.

use nats_service::{CallError, Code, StoreError};
use nats_service_tests::desk::{
    Act, DeskClient, DeskError, DeskServer, Hand, KeeperClient, PackedClient, Worker, doing, task,
};
use nats_service_tests::{PATIENCE, soon, until};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_local_call_has_its_answer_and_its_typed_error() {
    let worker = Worker::new();
    let client = DeskClient::local(Hand(worker.clone()));
    let reply = soon("an answer", client.echo(task("a")).reply())
        .await
        .unwrap();
    assert_eq!((reply.value, reply.attempts), (task("a"), 1));
    let failed = soon("an error", client.echo(doing("a", Act::Fail, "no\r\nway"))).await;
    assert!(
        matches!(failed, Err(CallError::Service(DeskError::Refused { .. }))),
        "{failed:?}"
    );
    // Through the server's wrapper, and in another codec.
    let shared = DeskClient::local_from(DeskServer::new(Hand(worker)));
    assert_eq!(shared.clone().other(task("b")).await.unwrap(), task("b"));
    assert_eq!(
        PackedClient::local(Hand(Worker::new()))
            .pack(task("c"))
            .await
            .unwrap(),
        task("c")
    );
}

#[tokio::test]
async fn a_caller_may_wait_for_ever() {
    let client = DeskClient::local(Hand(Worker::new()));
    let call = client.echo(task("a")).timeout(Duration::MAX);
    assert_eq!(soon("an answer", call).await.unwrap(), task("a"));
}

#[tokio::test]
async fn a_panic_and_a_time_out_are_what_they_are_through_a_server() {
    let worker = Worker::new();
    let client = DeskClient::local(Hand(worker.clone()));
    for act in [Act::Panic, Act::PanicLater] {
        let ended = soon("an error", client.echo(doing("a", act, "secret"))).await;
        match ended {
            Err(CallError::Remote(error)) => {
                assert_eq!(error.code(), Code::Internal);
                assert!(!error.to_string().contains("secret"));
            }
            other => panic!("{other:?}"),
        }
    }
    worker.dropped.store(0, SeqCst);
    let short = client
        .echo(doing("a", Act::Hold, ""))
        .timeout(Duration::from_millis(500));
    assert!(matches!(
        soon("a time-out", short).await,
        Err(CallError::Timeout { .. })
    ));
    // The endpoint's own. Either stops the handler.
    let hasty = client.hasty(doing("a", Act::Hold, "")).timeout(PATIENCE);
    assert_eq!(
        soon("an error", hasty).await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    until("both handlers are stopped", async || {
        worker.dropped.load(SeqCst) == 2
    })
    .await;
}

#[tokio::test]
async fn a_message_that_a_server_would_not_take_is_refused_in_either_direction() {
    let client = DeskClient::local(Hand(Worker::new()));
    let large = client.echo(doing("a", Act::Answer, &"x".repeat(2 << 20)));
    assert!(matches!(
        soon("an error", large).await,
        Err(CallError::TooLarge { .. })
    ));
    let grown = soon("an error", client.echo(doing("a", Act::Grow(2 << 20), ""))).await;
    assert_eq!(grown.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn keys_are_checked_answers_are_not_kept_and_a_promise_to_keep_one_is_refused() {
    let client = KeeperClient::local(Hand(Worker::new()));
    assert_eq!(
        soon("an answer", client.keep(task("a"))).await.unwrap(),
        task("a")
    );
    let bad = soon("an error", client.keep(task("7.admin")))
        .await
        .unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    let surely = soon("an error", client.keep_surely(task("a")))
        .await
        .unwrap_err();
    assert_eq!(surely.code(), Code::FailedPrecondition);
    assert!(surely.to_string().contains("JetStream"), "{surely}");
    assert!(matches!(client.stores(), Err(StoreError::NoJetStream)));
}

#[tokio::test]
async fn calls_run_side_by_side_and_the_service_goes_with_its_last_client() {
    let worker = Worker::new();
    let client = DeskClient::local(Hand(worker.clone()));
    let mut calls = JoinSet::new();
    for i in 0..100 {
        let client = client.clone();
        calls.spawn(async move { client.echo(doing(&i.to_string(), Act::Hold, "")).await });
    }
    worker.until_running(100).await;
    worker.gate.add_permits(100);
    while let Some(ended) = soon("an answer", calls.join_next()).await {
        ended.unwrap().unwrap();
    }
    let weak = std::sync::Arc::downgrade(&worker);
    drop((client, worker));
    until("the service is gone", async || weak.upgrade().is_none()).await;
}
