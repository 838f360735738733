//! Back-pressure, cancellation, limits, shutdown.

use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nats_service::{CallError, Code};
use nats_service_tests::spout::{Act, SpoutClient, doing, spout, spout_with, to};
use nats_service_tests::{Nats, PATIENCE, processed, soon, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

#[tokio::test]
async fn a_slow_reader_slows_the_handler_down() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    let mut drops = soon("a stream", client.count(to(1_000_000)).window(16, 1 << 20))
        .await
        .unwrap();
    until("it runs ahead", async || served.seen.produced() == 16).await;
    // Many round trips later it has not gone on.
    for _ in 0..50 {
        processed(&nats.client).await;
    }
    assert_eq!(served.seen.produced(), 16);
    for read in 1..=2_000 {
        soon("an item", drops.next()).await.unwrap().unwrap();
        let ahead = served.seen.produced() - read;
        assert!(ahead <= 16, "{ahead} ahead");
    }
    drop(drops);
    served.seen.until_running(0).await;
    // In bytes, too: two items of 1,000 fill 1,500, since the last may exceed them.
    let before = served.seen.produced();
    let mut ask = to(1_000_000);
    ask.bytes = 1_000;
    let drops = soon("a stream", client.count(ask).window(60_000, 1_500)).await;
    let _drops = drops.unwrap();
    until("it runs ahead", async || served.seen.produced() > before).await;
    for _ in 0..50 {
        processed(&nats.client).await;
    }
    assert_eq!(served.seen.produced() - before, 2);
}

#[tokio::test]
async fn a_slow_handler_slows_the_caller_down() {
    let nats = Nats::start().await;
    let served = spout_with(&nats.server, |server| server.stream_window(8, 1 << 20)).await;
    let client = SpoutClient::new(nats.client.clone());
    let all = served.seen.gate.available_permits();
    served.seen.gate.forget_permits(all);
    let pulled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&pulled);
    let numbers = stream::iter(1..=1_000_u64).inspect(move |_| {
        count.fetch_add(1, SeqCst);
    });
    let call = tokio::spawn(client.sum(0, numbers).into_future());
    // One is in the handler's hands, and what it holds was read.
    until("it runs ahead", async || pulled.load(SeqCst) >= 8).await;
    for _ in 0..50 {
        processed(&nats.client).await;
    }
    assert!(pulled.load(SeqCst) <= 9, "{}", pulled.load(SeqCst));
    served.seen.gate.add_permits(1);
    let sum = soon("a sum", call).await.unwrap().unwrap();
    assert_eq!(sum, 500_500);
}

#[tokio::test]
async fn dropping_a_stream_drops_the_handlers_stream() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    // While it waits for more, while it waits for room, and unread.
    for (many, read) in [(3, 3), (1_000_000, 10), (1_000_000, 0)] {
        let call = client.count(doing(many, Act::Stay));
        let mut drops = soon("a stream", call).await.unwrap();
        for _ in 0..read {
            soon("an item", drops.next()).await.unwrap().unwrap();
        }
        served.seen.until_running(1).await;
        drop(drops);
        served.seen.until_running(0).await;
    }
    // A call that sends a stream, before its answer.
    let call = tokio::spawn(client.sum(0, stream::pending()).into_future());
    served.seen.until_running(1).await;
    call.abort();
    served.seen.until_running(0).await;
    // None of it was an error.
    let stats = nats_service_tests::desk::stats(&nats.client, "spout", "count").await;
    assert_eq!(
        (&stats["num_requests"], &stats["num_errors"]),
        (&3.into(), &0.into())
    );
    // A call that its caller has given up before the service began: the late stream is told.
    let late = client.sum(0, stream::pending()).timeout(Duration::ZERO);
    assert!(soon("an error", late).await.is_err());
    served.seen.until_running(0).await;
}

#[tokio::test]
async fn a_hundred_streams_at_once_leave_room_for_calls() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    let streams = (0..100).map(|_| {
        let call = client.count(to(3_000));
        tokio::spawn(async move {
            let drops = call.await.expect("a stream");
            let numbers = drops.map_ok(|drop| drop.number);
            let numbers: Vec<u64> = numbers.try_collect().await.expect("all");
            assert!(numbers.into_iter().eq(1..=3_000));
        })
    });
    let streams = join_all(streams);
    let calls = async {
        for number in 0..200 {
            let answer = soon("an answer", client.unary(number)).await;
            assert_eq!(answer.expect("an answer"), number);
        }
    };
    let (ended, ()) = soon("all of it", futures_util::future::join(streams, calls)).await;
    for stream in ended {
        stream.expect("no panic");
    }
    served.seen.until_running(0).await;
}

#[tokio::test]
async fn no_more_streams_are_open_than_the_server_allows() {
    let nats = Nats::start().await;
    let served = spout_with(&nats.server, |server| server.max_streams(2)).await;
    let client = SpoutClient::new(nats.client.clone());
    let stay = || client.count(doing(1, Act::Stay));
    let first = soon("a stream", stay()).await.unwrap();
    let _second = soon("a stream", stay()).await.unwrap();
    let third = soon("an answer", stay()).await.unwrap_err();
    assert_eq!(third.code(), Code::ResourceExhausted);
    assert!(third.to_string().contains("2 streams"), "{third}");
    drop(first);
    served.seen.until_running(1).await;
    until("there is room", async || stay().await.is_ok()).await;
}

#[tokio::test]
async fn a_shutdown_lets_streams_end_and_tells_those_that_do_not() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    let drops = soon("a stream", client.count(to(50_000))).await.unwrap();
    let shutdown = tokio::spawn(served.running.shutdown(PATIENCE));
    let numbers: Vec<_> = soon("all", drops.try_collect()).await.unwrap();
    assert_eq!(numbers.len(), 50_000);
    let report = soon("the shutdown", shutdown).await.unwrap().unwrap();
    assert_eq!(report.cut_streams, 0);

    let served = spout(&nats.server).await;
    let mut drops = soon("a stream", client.count(doing(3, Act::Stay)))
        .await
        .unwrap();
    for _ in 0..3 {
        soon("an item", drops.next()).await.unwrap().unwrap();
    }
    let shutdown = served.running.shutdown(Duration::from_millis(100));
    let report = soon("the shutdown", shutdown).await.unwrap_err().0;
    assert_eq!(report.cut_streams, 1);
    match soon("an error", drops.next()).await {
        Some(Err(CallError::Remote(error))) => assert_eq!(error.code(), Code::Unavailable),
        other => panic!("{other:?}"),
    }
    assert!(soon("the end", drops.next()).await.is_none());
    served.seen.until_running(0).await;
}
