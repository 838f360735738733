//! A stop loses nothing that was taken, and says what it had to leave.

use futures_util::StreamExt as _;
use nats_service::{CallError, Code, ShutdownError};
use nats_service_tests::desk::{self, Act, DeskClient, KeeperClient, Task, doing, task};
use nats_service_tests::{Nats, PATIENCE, processed, soon};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_stop_may_take_as_long_as_it_takes() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone());
    client.keep(task("one")).await.unwrap();
    keeper.running.shutdown(Duration::MAX).await.unwrap();
}

#[tokio::test]
async fn everything_that_was_taken_is_answered_and_stored() {
    let nats = Nats::start().await;
    let keeper = desk::keeper_with(&nats, |server| server.max_in_flight(100)).await;
    let client = KeeperClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    client.keep(task("first")).await.unwrap();
    let mut calls = JoinSet::new();
    for i in 0..300 {
        let call = client.keep(doing(&i.to_string(), Act::Hold, ""));
        calls.spawn(async move { call.await });
    }
    // A hundred run, the others wait for their turn or are still on their way.
    keeper.worker.until_running(100).await;
    processed(&nats.client).await;
    let worker = keeper.worker.clone();
    let stopping = tokio::spawn(keeper.running.shutdown(PATIENCE));
    // Nobody listens any more, and nothing was answered yet.
    nats_service_tests::until("the intake ends", async || {
        let probe = client
            .keep(task("probe"))
            .timeout(Duration::from_millis(100));
        matches!(probe.await, Err(CallError::NoResponders { .. }))
    })
    .await;
    worker.gate.add_permits(300);
    let mut given = Vec::new();
    while let Some(ended) = soon("an answer", calls.join_next()).await {
        given.push(ended.unwrap().expect("an answer").id);
    }
    assert_eq!(given.len(), 300);
    let report = soon("the stop", stopping)
        .await
        .unwrap()
        .expect("nothing is left");
    assert!(report.unwritten.is_empty() && report.cut_short == 0);
    let kept = client.stores().unwrap().keep();
    for id in given {
        assert!(kept.at(&id).unwrap().get().await.unwrap().is_some(), "{id}");
    }
}

#[tokio::test]
async fn when_time_is_up_the_unanswered_are_told_and_the_report_counts_them() {
    let nats = Nats::start().await;
    let desk = desk::desk_with(&nats, |server| server.max_in_flight(10)).await;
    let client = DeskClient::new(nats.client.clone());
    client.other(task("first")).await.unwrap();
    let mut calls = JoinSet::new();
    for i in 0..30 {
        let call = client.echo(doing(&i.to_string(), Act::Hold, ""));
        calls.spawn(async move { call.await });
    }
    desk.worker.until_running(10).await;
    processed(&nats.client).await;
    let stopped = soon(
        "the stop",
        desk.running.shutdown(Duration::from_millis(100)),
    )
    .await;
    let ShutdownError(report) = stopped.unwrap_err();
    assert_eq!((report.cut_short, report.unwritten.len()), (1, 0));
    while let Some(ended) = soon("an answer", calls.join_next()).await {
        match ended.unwrap() {
            Err(CallError::Remote(error)) => assert_eq!(error.code(), Code::Unavailable),
            other => panic!("{other:?}"),
        }
    }
    // Those that waited were not begun for nothing.
    assert_eq!(desk.worker.begun(), 11);
    assert_eq!(desk.worker.dropped.load(SeqCst), 10);
}

#[tokio::test]
async fn when_time_is_up_what_is_not_stored_is_in_the_report_with_its_value() {
    let nats = Nats::start().await;
    let hooked = Arc::new(AtomicUsize::new(0));
    let count = hooked.clone();
    let keeper = desk::keeper_with(&nats, |server| {
        server.on_failed_write(move |_| {
            count.fetch_add(1, SeqCst);
        })
    })
    .await;
    nats.js.delete_key_value("kept").await.unwrap();
    let client = KeeperClient::new(nats.client.clone());
    for i in 0..5 {
        client.keep(task(&i.to_string())).await.unwrap();
    }
    let stopped = soon(
        "the stop",
        keeper.running.shutdown(Duration::from_millis(200)),
    )
    .await;
    let ShutdownError(report) = stopped.unwrap_err();
    assert_eq!(report.cut_short, 0);
    let mut values: Vec<Task> = report
        .unwritten
        .iter()
        .map(|write| serde_json::from_slice(write.value.as_ref().unwrap()).unwrap())
        .collect();
    values.sort_by(|a, b| a.id.cmp(&b.id));
    let expected: Vec<_> = (0..5).map(|i| task(&i.to_string())).collect();
    assert_eq!(values, expected);
    assert_eq!(hooked.load(SeqCst), 5);
}

#[tokio::test]
async fn a_stopped_service_is_gone_from_discovery_and_from_its_subjects() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    desk.running.shutdown(PATIENCE).await.unwrap();
    for subject in ["desk.echo", "desk.tell_all", "$SRV.PING", "$SRV.INFO.desk"] {
        let asked = soon(subject, nats.client.request(subject, "".into())).await;
        assert!(
            asked.unwrap_err().to_string().contains("no responders"),
            "{subject}"
        );
    }
}

#[tokio::test]
async fn a_service_that_is_dropped_is_gone() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    drop(desk.running);
    nats_service_tests::until("nobody answers", async || {
        let call = client.echo(task("a")).timeout(Duration::from_millis(100));
        matches!(call.await, Err(CallError::NoResponders { .. }))
    })
    .await;
}

/// The promise that `drain` builds upon.
#[tokio::test]
async fn a_limit_that_is_no_number_ends_the_servers_side_at_once_and_ours_stays_open() {
    for version in ["2.12.8", "2.15.1"] {
        let nats = Nats::start_with(|server| server.version(version)).await;
        let (client, _) = nats_service_tests::connect(&nats.server).await;
        let mut subscription = client.queue_subscribe("s", "q".to_owned()).await.unwrap();
        processed(&client).await;
        nats.client.publish("s", "before".into()).await.unwrap();
        processed(&nats.client).await;
        subscription.unsubscribe_after(u64::MAX).await.unwrap();
        processed(&client).await;
        let asked = nats.client.request("s", "after".into()).await;
        assert!(
            asked.unwrap_err().to_string().contains("no responders"),
            "{version}"
        );
        let first = soon("the message before", subscription.next())
            .await
            .unwrap();
        assert_eq!(&first.payload[..], b"before");
        subscription.unsubscribe().await.unwrap();
        assert!(soon("the end", subscription.next()).await.is_none());
    }
}

#[tokio::test]
async fn a_stop_with_nothing_to_do_is_a_matter_of_moments() {
    let nats = Nats::start().await;
    let mut times = Vec::new();
    for _ in 0..10 {
        let desk = desk::desk(&nats).await;
        let begin = Instant::now();
        desk.running.shutdown(PATIENCE).await.unwrap();
        times.push(begin.elapsed());
    }
    times.sort();
    println!(
        "an idle stop takes {:?} (median), {:?} at most",
        times[5], times[9]
    );
    assert!(times[5] < Duration::from_millis(150), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_are_replaced_one_after_another_under_load_lose_no_call() {
    let nats = Nats::start().await;
    let mut instances = VecDeque::new();
    for _ in 0..3 {
        instances.push_back(desk::desk(&nats).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..4 {
        let (client, _) = nats_service_tests::connect(&nats.server).await;
        let client = DeskClient::new(client).with_timeout(PATIENCE);
        for _ in 0..32 {
            let (client, stop, answered) = (client.clone(), stop.clone(), answered.clone());
            callers.spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(SeqCst) {
                    match client.echo(task(&caller.to_string())).await {
                        Ok(_) => drop(answered.fetch_add(1, SeqCst)),
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                failed
            });
        }
    }
    for _ in 0..60 {
        let before = answered.load(SeqCst);
        nats_service_tests::until("the load is steady", async || {
            answered.load(SeqCst) > before + 100
        })
        .await;
        instances.push_back(desk::desk(&nats).await);
        let oldest = instances.pop_front().unwrap();
        let report = soon("a stop", oldest.running.shutdown(PATIENCE)).await;
        report.expect("nothing is left");
    }
    stop.store(true, SeqCst);
    let mut failed = Vec::new();
    while let Some(ended) = soon("a caller", callers.join_next()).await {
        failed.extend(ended.unwrap());
    }
    println!("{} calls during 60 stops", answered.load(SeqCst));
    assert!(
        failed.is_empty(),
        "{} failed: {:?}",
        failed.len(),
        &failed[..failed.len().min(3)]
    );
}
