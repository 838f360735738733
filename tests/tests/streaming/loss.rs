//! What is lost: a process, a connection.

use futures_util::{StreamExt as _, stream};
use nats_service::{CallError, StreamBreak};
use nats_service_testkit::Proxy;
use nats_service_tests::spout::{Act, BEAT, SpoutClient, doing, serve_on, spout, to};
use nats_service_tests::{Nats, PATIENCE, soon, until};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What this binary does when it is its own child.
const URL: &str = "NATS_SERVICE_TEST_CHILD_URL";

/// A process that plays one part, and is killed in the end in any case.
struct Part(Child);

impl Part {
    fn start(part: &str, nats: &Nats) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command
            .args(["--exact", part, "--ignored"])
            .env(URL, nats.server.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().expect("a child"))
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.0.kill().expect("a child");
        self.0.wait().expect("its end");
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn connect_as_child() -> async_nats::Client {
    let url = std::env::var(URL).expect("a parent");
    async_nats::connect(url).await.expect("a connection")
}

#[tokio::test]
#[ignore = "the child of a test that kills it"]
async fn child_that_serves() {
    let _served = serve_on(connect_as_child().await, |server| server).await;
    tokio::time::sleep(10 * PATIENCE).await;
}

#[tokio::test]
#[ignore = "the child of a test that kills it"]
async fn child_that_calls() {
    let client = SpoutClient::new(connect_as_child().await);
    let call = client.count(doing(3, Act::Stay)).heartbeat(BEAT);
    let _drops = call.await.expect("a stream");
    let call = client.sum(0, stream::pending()).heartbeat(BEAT);
    call.await.expect("never");
}

#[tokio::test]
async fn a_service_that_is_killed_is_missed_within_the_bound() {
    let nats = Nats::start().await;
    let mut service = Part::start("loss::child_that_serves", &nats);
    let client = SpoutClient::new(nats.client.clone());
    until("it serves", async || client.unary(1).await.is_ok()).await;
    let call = client.count(doing(3, Act::Stay)).heartbeat(BEAT);
    let mut drops = soon("a stream", call).await.unwrap();
    for _ in 0..3 {
        soon("an item", drops.next()).await.unwrap().unwrap();
    }
    let sum = client.sum(0, stream::pending()).heartbeat(BEAT);
    let sum = tokio::spawn(sum.into_future());
    until("both are open", async || {
        let stats = nats_service_tests::desk::stats(&nats.client, "spout", "sum").await;
        stats["data"]["streams"]["num_open"] == 1
    })
    .await;
    // Longer than the bound: signs of life keep what has nothing to say.
    tokio::time::sleep(6 * BEAT).await;

    service.kill();
    let killed = Instant::now();
    match soon("an error", drops.next()).await {
        Some(Err(CallError::Broken { why, .. })) => {
            assert_eq!(why, StreamBreak::Silent { after: 5 * BEAT });
        }
        other => panic!("{other:?}"),
    }
    let took = killed.elapsed();
    assert!(took < 20 * BEAT, "{took:?}");
    assert!(soon("the end", drops.next()).await.is_none());
    let error = soon("an error", sum).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn a_caller_that_is_killed_has_its_handlers_dropped_within_the_bound() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let mut caller = Part::start("loss::child_that_calls", &nats);
    served.seen.until_running(2).await;
    tokio::time::sleep(6 * BEAT).await;
    served.seen.until_running(2).await;
    caller.kill();
    let killed = Instant::now();
    served.seen.until_running(0).await;
    let took = killed.elapsed();
    assert!(took < 20 * BEAT, "{took:?}");
    until("it counts as an error", async || {
        let stats = nats_service_tests::desk::stats(&nats.client, "spout", "count").await;
        stats["num_errors"] == 1
            && stats["last_error"]
                .to_string()
                .contains("nothing was heard")
    })
    .await;
}

#[tokio::test]
async fn a_short_break_of_either_connection_loses_and_repeats_and_disorders_nothing() {
    let nats = Nats::start().await;
    let (near, far) = (
        Proxy::start(nats.server.url()).await.unwrap(),
        Proxy::start(nats.server.url()).await.unwrap(),
    );
    let service = async_nats::connect(far.url()).await.unwrap();
    let served = serve_on(service, |server| server).await;
    let client = async_nats::connect(near.url()).await.unwrap();
    let client = SpoutClient::new(client);
    let call = client.count(to(20_000)).window(64, 64 << 10);
    let mut drops = soon("a stream", call.heartbeat(Duration::from_secs(1)))
        .await
        .unwrap();
    // And the other way round, at the same time.
    let numbers = stream::iter(1..=20_000_u64).then(|number| async move {
        if number % 1_000 == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        number
    });
    let sum = client.sum(0, numbers).heartbeat(Duration::from_secs(1));
    let sum = tokio::spawn(sum.into_future());
    for number in 1..=20_000 {
        let drop = soon("an item", drops.next()).await.unwrap();
        let drop = drop.unwrap_or_else(|error| panic!("after {number}: {error}"));
        assert_eq!(drop.number, number);
        match number % 8_000 {
            2_000 => {
                near.cut().await.unwrap();
                near.pass().await.unwrap();
            }
            6_000 => {
                far.cut().await.unwrap();
                far.pass().await.unwrap();
            }
            _ => {}
        }
    }
    assert!(soon("the end", drops.next()).await.is_none());
    let sum = soon("a sum", sum).await.unwrap().unwrap();
    assert_eq!(sum, 20_000 * 20_001 / 2);
    served.seen.until_running(0).await;
}

#[tokio::test]
async fn a_break_that_is_too_long_ends_the_stream_on_both_sides() {
    let nats = Nats::start().await;
    let proxy = Proxy::start(nats.server.url()).await.unwrap();
    let served = spout(&nats.server).await;
    let client = async_nats::connect(proxy.url()).await.unwrap();
    let client = SpoutClient::new(client);
    let call = client.count(doing(3, Act::Stay)).heartbeat(BEAT);
    let mut drops = soon("a stream", call).await.unwrap();
    for _ in 0..3 {
        soon("an item", drops.next()).await.unwrap().unwrap();
    }
    // Nobody notices but by the silence.
    proxy.stall().await.unwrap();
    served.seen.until_running(0).await;
    match soon("an error", drops.next()).await {
        Some(Err(CallError::Broken { .. })) => {}
        other => panic!("{other:?}"),
    }
}
