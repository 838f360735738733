//! How requests are dispatched: side by side, bounded, and each with its own time.

use nats_service::{CallError, Code};
use nats_service_tests::desk::{self, Act, DeskClient, DeskError, Task, ask, doing, task};
use nats_service_tests::{Nats, soon, until};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::task::JoinSet;

type Answer = Result<Task, CallError<DeskError>>;

/// Calls that wait at the gate.
fn hold(client: &DeskClient, calls: &mut JoinSet<Answer>, count: usize) {
    for i in 0..count {
        let call = client.echo(doing(&i.to_string(), Act::Hold, ""));
        calls.spawn(async move { call.await });
    }
}

async fn all_answered(calls: &mut JoinSet<Answer>) {
    while let Some(ended) = soon("an answer", calls.join_next()).await {
        ended.unwrap().expect("an answer");
    }
}

#[tokio::test]
async fn slow_handlers_never_hold_up_fast_ones() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    let mut slow = JoinSet::new();
    hold(&client, &mut slow, 500);
    desk.worker.until_running(500).await;
    for i in 0..200 {
        let id = i.to_string();
        soon("the same endpoint", client.echo(task(&id)))
            .await
            .unwrap();
        soon("another endpoint", client.other(task(&id)))
            .await
            .unwrap();
    }
    assert_eq!(desk.worker.running.load(SeqCst), 500);
    desk.worker.gate.add_permits(500);
    all_answered(&mut slow).await;
}

#[tokio::test]
async fn no_more_than_the_bound_run_at_once_and_what_is_beyond_the_queue_is_refused_at_once() {
    let nats = Nats::start().await;
    let desk = desk::desk_with(&nats, |server| {
        server.max_in_flight(4).max_waiting(10, 1 << 20)
    })
    .await;
    let client = DeskClient::new(nats.client.clone());
    // The inbox is there from now on, so that the next calls are sent in the order in which they are made.
    client.other(task("first")).await.unwrap();
    let mut taken = JoinSet::new();
    hold(&client, &mut taken, 14);
    desk.worker.until_running(4).await;
    for _ in 0..50 {
        match soon("an answer", client.echo(task("too much"))).await {
            Err(CallError::Remote(error)) => assert_eq!(error.code(), Code::ResourceExhausted),
            other => panic!("{other:?}"),
        }
    }
    // Another endpoint has bounds of its own.
    client.other(task("a")).await.unwrap();
    let stats = desk::stats(&nats.client, "desk", "echo").await;
    assert!(stats["data"]["num_shed"].as_u64().unwrap() >= 49, "{stats}");
    assert_eq!(desk.worker.running.load(SeqCst), 4);
    desk.worker.gate.add_permits(1000);
    all_answered(&mut taken).await;
    // `other` ran beside the four.
    assert!(desk.worker.most.load(SeqCst) <= 5);
    client.echo(task("again")).await.unwrap();
}

#[tokio::test]
async fn what_waits_is_bounded_in_bytes_too() {
    let nats = Nats::start().await;
    let desk = desk::desk_with(&nats, |server| {
        server.max_in_flight(1).max_waiting(1000, 100_000)
    })
    .await;
    let client = DeskClient::new(nats.client.clone());
    let mut calls = JoinSet::new();
    hold(&client, &mut calls, 1);
    desk.worker.until_running(1).await;
    let large = "x".repeat(30_000);
    let mut waiting = JoinSet::new();
    for _ in 0..10 {
        let call = client.echo(doing("a", Act::Answer, &large));
        waiting.spawn(async move { call.await });
    }
    let mut refused = 0;
    while refused < 7 {
        let ended = soon("a refusal", waiting.join_next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ended.unwrap_err().code(), Code::ResourceExhausted);
        refused += 1;
    }
    desk.worker.gate.add_permits(1);
    all_answered(&mut calls).await;
    all_answered(&mut waiting).await;
    assert_eq!(desk.worker.begun(), 4);
}

#[tokio::test]
async fn a_request_whose_time_passed_while_it_waited_is_not_begun() {
    let nats = Nats::start().await;
    let desk = desk::desk_with(&nats, |server| server.max_in_flight(1)).await;
    let client = DeskClient::new(nats.client.clone()).with_timeout(Duration::from_secs(20));
    // Blocks its one place for longer than the 300 ms that the endpoint has, by being cut at 300 ms itself.
    let first = client.hasty(doing("first", Act::Hold, ""));
    let first = tokio::spawn(async move { first.await });
    desk.worker.until_running(1).await;
    let mut late = JoinSet::new();
    for _ in 0..5 {
        let call = client.hasty(doing("late", Act::Hold, ""));
        late.spawn(async move { call.await });
    }
    assert_eq!(
        first.await.unwrap().unwrap_err().code(),
        Code::DeadlineExceeded
    );
    let mut begun_late = 0;
    while let Some(ended) = soon("an answer", late.join_next()).await {
        let error = ended.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        begun_late += usize::from(!error.to_string().contains("waited too long"));
    }
    // They came a moment after the first, so the second may still have been begun before its own 300 ms were over.
    assert!(begun_late <= 1, "{begun_late} were begun");
    assert_eq!(desk.worker.begun(), 1 + begun_late);
}

#[tokio::test]
async fn a_time_out_stops_the_handler_before_it_is_answered() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone()).with_timeout(Duration::from_secs(20));
    let ended = soon("an answer", client.hasty(doing("a", Act::Hold, ""))).await;
    match ended {
        Err(CallError::Remote(error)) => {
            assert_eq!(error.code(), Code::DeadlineExceeded);
            assert!(error.message().contains("300ms"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let worker = &desk.worker;
    let seen = (worker.dropped.load(SeqCst), worker.running.load(SeqCst));
    assert_eq!(seen, (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn handlers_that_compute_use_more_than_one_core() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    let mut calls = JoinSet::new();
    for i in 0..200 {
        let call = client.echo(doing(&i.to_string(), Act::Compute, ""));
        calls.spawn(async move { call.await });
    }
    all_answered(&mut calls).await;
    let beside = desk.worker.computed_beside.load(SeqCst);
    assert!(beside >= 100, "{beside} of 200 saw another one compute");
}

#[tokio::test]
async fn without_a_queue_group_every_instance_gets_it_and_with_one_they_share() {
    let nats = Nats::start().await;
    let (one, two) = (desk::desk(&nats).await, desk::desk(&nats).await);
    let client = DeskClient::new(nats.client.clone());
    for _ in 0..20 {
        client.tell_all(task("a")).await.unwrap();
    }
    until("both hear all", async || {
        one.worker.begun() == 20 && two.worker.begun() == 20
    })
    .await;

    let mut calls = JoinSet::new();
    for i in 0..400 {
        let call = client.echo(task(&i.to_string()));
        calls.spawn(async move { call.await });
    }
    all_answered(&mut calls).await;
    let shares = (one.worker.begun() - 20, two.worker.begun() - 20);
    assert_eq!(shares.0 + shares.1, 400);
    assert!(shares.0 >= 50 && shares.1 >= 50, "{shares:?}");
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_the_endpoint_as_it_was() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    let given_up = client
        .echo(doing("a", Act::Hold, ""))
        .timeout(Duration::from_secs(1));
    match given_up.await {
        Err(CallError::Timeout { subject, after }) => {
            assert_eq!(
                (subject.as_str(), after),
                ("desk.echo", Duration::from_secs(1))
            );
        }
        other => panic!("{other:?}"),
    }
    desk.worker.gate.add_permits(1);
    desk.worker.until_running(0).await;
    // The late answer is nobody's, and the next call gets its own.
    assert_eq!(client.echo(task("b")).await.unwrap(), task("b"));
    let reply = ask(
        &nats.client,
        "desk.echo",
        serde_json::to_vec(&task("c")).unwrap(),
    )
    .await;
    assert_eq!(reply.headers, None);
}
