//! A rolling restart: three instances, each a process of its own, are replaced one after another by SIGTERM, while callers send
//! 5,000 requests a second by the clock.
//!
//! What it proves: no request is lost between the moment when an instance is told to end and the end of its process, whose
//! connection is closed without a further word once `shutdown` has returned. No call is repeated here: `Desk::echo` is not
//! idempotent. What it does not: that a machine keeps up with that rate. One that is too busy sends later, no more than
//! 2,000 calls wait at a time, and the rate that was reached is printed.

use nats_service::Server;
use nats_service_tests::desk::{DeskClient, DeskServer, Hand, Worker, task};
use nats_service_tests::{Nats, PATIENCE, connect, soon, until};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

const RATE: usize = 5_000;
const OUTSTANDING: usize = 2_000;
const URL: &str = "ROLLING_TEST_URL";
const READY: &str = "the instance is ready";

#[test]
#[ignore = "the test below runs it, in processes of their own"]
fn an_instance_that_ends_by_a_signal() {
    let url = std::env::var(URL).expect("the URL of a server");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).expect("a signal");
        let nats = async_nats::connect(url).await.expect("a connection");
        let server = Server::new(nats).serve(DeskServer::new(Hand(Worker::new())));
        let running = server.start().await.expect("an instance");
        println!("{READY}");
        terminate.recv().await;
        running.shutdown(PATIENCE).await
    });
    // At once: nothing that is still in the connection's buffers gets out by a tidy end.
    std::process::exit(i32::from(ended.is_err()));
}

/// Starts an instance, and waits until it serves.
async fn instance(url: &str) -> Child {
    let test = std::env::current_exe().expect("this test");
    let mut child = Command::new(test)
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("an_instance_that_ends_by_a_signal")
        .env(URL, url)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("an output")).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await.expect("an output") {
            if line.contains(READY) {
                return;
            }
        }
        panic!("the instance ended before it was ready");
    };
    soon("an instance", ready).await;
    child
}

async fn end(mut instance: Child) {
    let id = instance.id().expect("it runs").to_string();
    let told = Command::new("kill").args(["-TERM", &id]).status().await;
    assert!(told.expect("kill").success());
    let status = soon("the end of an instance", instance.wait()).await;
    assert!(
        status.expect("a status").success(),
        "something was left undone"
    );
}

/// What the callers have seen.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    stop: AtomicBool,
}

/// Sends by the clock, whether earlier calls have been answered or not. Ends with what failed.
fn load(client: DeskClient, seen: &Arc<Seen>) -> JoinHandle<Vec<String>> {
    let (seen, room) = (Arc::clone(seen), Arc::new(Semaphore::new(OUTSTANDING)));
    tokio::spawn(async move {
        let (mut calls, mut failed) = (JoinSet::new(), Vec::new());
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        let (begin, mut sent) = (Instant::now(), 0);
        while !seen.stop.load(SeqCst) {
            tick.tick().await;
            let due = (begin.elapsed().as_secs_f64() * RATE as f64) as usize;
            while sent < due {
                let permit = Arc::clone(&room).acquire_owned().await.expect("room");
                let (client, seen) = (client.clone(), Arc::clone(&seen));
                calls.spawn(async move {
                    let ended = client.echo(task("a")).await;
                    seen.answered.fetch_add(usize::from(ended.is_ok()), SeqCst);
                    drop(permit);
                    ended.err().map(|error| error.to_string())
                });
                sent += 1;
            }
            while let Some(ended) = calls.try_join_next() {
                failed.extend(ended.expect("no panic"));
            }
        }
        while let Some(ended) = calls.join_next().await {
            failed.extend(ended.expect("no panic"));
        }
        failed
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_are_replaced_under_five_thousand_requests_a_second_and_no_call_fails() {
    let nats = Nats::start().await;
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(instance(nats.server.url()).await);
    }
    let (connection, _) = connect(&nats.server).await;
    let client = DeskClient::new(connection).with_timeout(PATIENCE);
    let seen = Arc::<Seen>::default();
    // They live until the test ends.
    let mut replaced = Vec::new();
    let begin = Instant::now();
    let load = load(client, &seen);
    for old in instances {
        let before = seen.answered.load(SeqCst);
        until("the load is steady", async || {
            seen.answered.load(SeqCst) >= before + RATE
        })
        .await;
        let new = instance(nats.server.url()).await;
        end(old).await;
        replaced.push(new);
    }
    let before = seen.answered.load(SeqCst);
    until("the load is steady", async || {
        seen.answered.load(SeqCst) >= before + RATE
    })
    .await;
    seen.stop.store(true, SeqCst);
    let failed = soon("the last calls", load).await.expect("no panic");
    let (answered, took) = (seen.answered.load(SeqCst), begin.elapsed());
    let rate = answered as f64 / took.as_secs_f64();
    println!(
        "{answered} calls in {took:.1?}, {rate:.0} a second, {} failed",
        failed.len()
    );
    assert!(answered >= 4 * RATE);
    assert!(
        failed.is_empty(),
        "{} failed: {:?}",
        failed.len(),
        &failed[..failed.len().min(3)]
    );
}
