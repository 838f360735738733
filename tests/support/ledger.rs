//! A service, its callers, its readers and those who contend for one key, on a cluster that fails: everything they were told
//! is recorded, and compared in the end with what the bucket holds.
//!
//! Used by a test in a short form, and by `bench` in a long one. What a single server's failure does is in
//! `tests/faults.rs`.

mod check;
#[cfg(test)]
mod check_tests;
mod history;
mod load;
mod replicas;

pub use check::Findings;

use crate::{PATIENCE, soon, until};
use async_nats::jetstream;
use check::adds_up;
use history::History;
use load::Load;
use nats_service::{KvStore, Running, Server, WriterStats, nats_service};
use nats_service_testkit::{Proxy, TestCluster};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The bucket.
pub const BUCKET: &str = "ledger";
/// Keys of each kind that are written at a time.
const KEYS: usize = 12;
/// How often each of them is written, before others take their turn: less often than the bucket keeps revisions, so that
/// all are there in the end. What is cut meanwhile, a watch that was away cannot bring, and nobody can tell it from a loss.
const WRITES: usize = 50;
/// Revisions of a key that the bucket keeps; the contract below says the same.
const HISTORY: i64 = 64;
/// Answers between two faults.
const BETWEEN: usize = 60;
/// How often the service's connection breaks at a time.
const CUTS: usize = 5;

/// What fails. Each is undone before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bucket's leader is killed, and started again.
    LeaderKilled,
    /// The bucket's leader stands still until another is elected, and goes on.
    LeaderPaused,
    /// The bucket's leader is stopped in order, and started again.
    LeaderStopped,
    /// The bucket's leader is cut off from the others until they have elected another; clients reach it still.
    LeaderCutOff,
    /// The service is gone at once, and another one starts.
    ServiceKilled,
    /// The service drains, and another one starts.
    ServiceReplaced,
    /// The connection of callers and readers breaks.
    ConnectionCut,
    /// The service's connection breaks while it writes, a few times, so that nobody tells it that this was stored; and once
    /// while the bucket's leader stands still, and dies, so that it was not.
    ServiceCut,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::LeaderKilled,
        Self::ServiceReplaced,
        Self::LeaderPaused,
        Self::ConnectionCut,
        Self::ServiceCut,
        Self::LeaderCutOff,
        Self::ServiceKilled,
        Self::LeaderStopped,
    ];
}

/// Something that is counted up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Whose.
    pub key: String,
    /// How far it is.
    pub number: u64,
    /// Which instance of the service counted; none did where callers write themselves.
    pub by: u64,
}

/// Counts, and keeps how far it is.
#[nats_service(timeout = "3s")]
pub trait Ledger {
    /// Answers, then writes.
    #[kv_store(bucket = "ledger", key = "later.<key>", history = 64, replicas = 3)]
    async fn later(&self, key: String) -> Count;

    /// Writes, then answers.
    #[kv_store(
        bucket = "ledger",
        key = "first.<key>",
        history = 64,
        replicas = 3,
        write = "before_reply"
    )]
    async fn first(&self, key: String) -> Count;
}

/// What outlives a service: how far each key was counted.
#[derive(Debug, Clone, Default)]
struct Counter(Arc<Mutex<HashMap<String, u64>>>);

struct Counting {
    counter: Counter,
    /// Which instance this is.
    by: u64,
    /// How many answers this instance has given to its writer.
    handled: Arc<Mutex<u64>>,
}

impl Counting {
    fn next(&self, kind: &str, key: String) -> Count {
        let mut counts = self.counter.0.lock().expect("no panic");
        let number = counts.entry(format!("{kind}.{key}")).or_default();
        *number += 1;
        *self.handled.lock().expect("no panic") += 1;
        Count {
            key,
            number: *number,
            by: self.by,
        }
    }
}

impl Ledger for Counting {
    async fn later(&self, key: String) -> Count {
        self.next("later", key)
    }

    async fn first(&self, key: String) -> Count {
        self.next("first", key)
    }
}

/// A service that can be killed: its runtime is its own, and goes with its connection and all its tasks.
struct Instance {
    number: u64,
    runtime: Option<tokio::runtime::Runtime>,
    running: Option<Running>,
    handled: Arc<Mutex<u64>>,
}

impl Instance {
    async fn start(number: u64, urls: Vec<String>, counter: Counter, told: Arc<History>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let handled = Arc::<Mutex<u64>>::default();
        let counting = Counting {
            counter,
            by: number,
            handled: handled.clone(),
        };
        let started = runtime.spawn(async move {
            let nats = async_nats::connect(urls).await.expect("a connection");
            let js = jetstream::new(nats.clone());
            Server::new(nats)
                .with_jetstream(js)
                .on_stored_write(move |write| {
                    let revision = write.revision.unwrap_or(0);
                    let stored = (number, write.key.clone(), revision);
                    told.told().stored.push(stored);
                })
                .serve(LedgerServer::new(counting))
                .start()
                .await
                .expect("it starts")
        });
        let running = soon("the service", started).await.expect("no panic");
        Self {
            number,
            runtime: Some(runtime),
            running: Some(running),
            handled,
        }
    }

    /// How many writes are on their way.
    fn in_flight(&self) -> usize {
        let writers = self.running.iter().flat_map(Running::writer_stats);
        writers.map(|writer| writer.in_flight).sum()
    }

    /// Returns in a moment in which one is.
    async fn writes(&self) {
        // Such a moment is over before a timer has run out.
        while self.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns when all that it has answered by now is written.
    async fn has_written(&self) {
        let since = Instant::now();
        // Ages are told to a fraction of a second.
        let before = |age: Duration| age + Duration::from_secs(1) > since.elapsed();
        let waits = |writer: &WriterStats| writer.oldest_pending.is_some_and(before);
        until("it is written", async || {
            let mut writers = self.running.iter().flat_map(Running::writer_stats);
            !writers.any(|writer| waits(&writer))
        })
        .await;
    }

    fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        drop(self.running.take());
    }

    /// Drains it. Its counts have to add up: everything that it handled was written, or given up, or replaced.
    async fn stop(mut self, findings: &mut Findings) {
        let (Some(running), Some(runtime)) = (self.running.take(), self.runtime.take()) else {
            return;
        };
        let stopped = runtime.spawn(running.shutdown(PATIENCE));
        let report = match soon("the stop", stopped).await.expect("no panic") {
            Ok(report) => report,
            Err(error) => {
                let problem = format!("a service did not drain: {error}");
                findings.problems.push(problem);
                error.0
            }
        };
        let handled = *self.handled.lock().expect("no panic");
        for writer in &report.writers {
            findings.problems.extend(adds_up(handled, writer).err());
        }
        runtime.shutdown_background();
    }
}

/// The network between somebody and the servers.
struct Way(Vec<Proxy>);

impl Way {
    async fn to(urls: &[String]) -> Self {
        let mut proxies = Vec::new();
        for url in urls {
            proxies.push(Proxy::start(url).await.expect("a proxy"));
        }
        Self(proxies)
    }

    fn urls(&self) -> Vec<String> {
        self.0.iter().map(|proxy| proxy.url().to_owned()).collect()
    }

    /// Breaks every connection. All servers can be reached again, but for this one.
    async fn cut(&self, avoid: Option<usize>) {
        for proxy in &self.0 {
            proxy.cut().await.expect("it cuts");
        }
        for (server, proxy) in self.0.iter().enumerate() {
            if Some(server) != avoid {
                proxy.pass().await.expect("it passes");
            }
        }
    }
}

/// Runs every fault `rounds` times under load, and says what was found.
///
/// # Panics
/// When the cluster does not come back.
pub async fn run(rounds: usize, faults: &[Fault]) -> Findings {
    let cluster = TestCluster::builder().partitions(true).advertise(false);
    let cluster = cluster.start().await.expect("a cluster");
    let urls: Vec<String> = cluster.urls().into_iter().map(str::to_owned).collect();
    let counter = Counter::default();
    let (callers, service) = (Way::to(&urls).await, Way::to(&urls).await);
    let history = Arc::<History>::default();
    let start = async |number| {
        let (urls, counter) = (service.urls(), counter.clone());
        Instance::start(number, urls, counter, history.clone()).await
    };
    let mut instance = start(1).await;
    let load = Load::start(callers.urls(), history.clone()).await;
    let mut findings = Findings::default();
    for fault in std::iter::repeat_n(faults, rounds).flatten() {
        load.answered(BETWEEN).await;
        match fault {
            Fault::LeaderKilled | Fault::LeaderStopped | Fault::LeaderPaused => {
                let leader = leader(&cluster).await;
                let server = cluster.server(leader);
                match fault {
                    Fault::LeaderKilled => server.kill().await,
                    Fault::LeaderPaused => server.pause().await,
                    _ => server.stop().await,
                }
                .expect("it fails");
                another_leader(&cluster, leader).await;
                match fault {
                    Fault::LeaderPaused => server.resume().await,
                    _ => server.restart().await,
                }
                .expect("it comes back");
            }
            Fault::LeaderCutOff => {
                let leader = leader(&cluster).await;
                cluster.cut_off(leader).await.expect("it is cut off");
                another_leader(&cluster, leader).await;
                cluster.rejoin(leader).await.expect("it rejoins");
            }
            Fault::ServiceKilled => {
                // What its writer had not stored goes with it, of its last moments: that is what `write = "before_reply"` is for.
                let answers = history.told().answers.len();
                instance.has_written().await;
                history.told().killed.insert(instance.number, answers);
                let number = instance.number;
                instance.kill();
                instance = start(number + 1).await;
            }
            Fault::ServiceReplaced => {
                let old = instance;
                instance = start(old.number + 1).await;
                old.stop(&mut findings).await;
            }
            Fault::ConnectionCut => callers.cut(None).await,
            Fault::ServiceCut => {
                for _ in 0..CUTS {
                    soon("a write", instance.writes()).await;
                    service.cut(None).await;
                    load.answered(CUTS).await;
                }
                let leader = leader(&cluster).await;
                callers.cut(Some(leader)).await;
                service.cut(Some(leader)).await;
                load.answered(CUTS).await;
                cluster.server(leader).pause().await.expect("it pauses");
                until("writes wait", async || instance.in_flight() >= CUTS).await;
                service.cut(Some(leader)).await;
                another_leader(&cluster, leader).await;
                // It wakes no more: it would pass on what it was sent.
                cluster.server(leader).kill().await.expect("it fails");
                cluster.server(leader).restart().await.expect("it is back");
                callers.cut(None).await;
                service.cut(None).await;
            }
        }
        cluster.wait_ready().await.expect("the cluster comes back");
        findings.faults += 1;
    }
    load.answered(BETWEEN).await;
    load.stop().await;
    instance.stop(&mut findings).await;
    let nats = async_nats::connect(urls.clone())
        .await
        .expect("a connection");
    let store = KvStore::<Count>::bind(jetstream::new(nats), BUCKET).expect("a name");
    let names = history.told().names();
    let held = history::held(&store, names).await;
    findings.judge(&history.told(), &held);
    findings.replicas = replicas::alike(&cluster).await.err().unwrap_or_default();
    if !findings.problems.is_empty() || !findings.replicas.is_empty() {
        let logs = replicas::keep_logs(&cluster);
        println!("what the servers logged is in {}", logs.display());
    }
    findings
}

async fn leader(cluster: &TestCluster) -> usize {
    let leader = cluster.stream_leader(&format!("KV_{BUCKET}")).await;
    leader.expect("a leader")
}

async fn another_leader(cluster: &TestCluster, old: usize) {
    until("another leader", async || leader(cluster).await != old).await;
}

/// How long a call may take; short, so that what is refused is tried again soon.
const CALL: Duration = Duration::from_secs(2);
