//! Watches and views of a replicated bucket while its leader is killed, stands still, or is cut off from the others.
//!
//! One process on each server, which knows no other: for one of them the leader is the only server it has.

use async_nats::jetstream;
use async_nats::jetstream::consumer::Info;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{KvStore, Operation, View, WatchBuilder, WatchEvent};
use nats_service_testkit::TestCluster;
use nats_service_tests::{soon, until};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Keys; so many that the bucket keeps every revision of each.
const KEYS: u64 = 40;
const HISTORY: i64 = 64;
/// A server that is not heard for that long is one that is gone, as is documented; and a second for a busy machine.
const NOTICED: Duration = Duration::from_secs(6);

/// How long a view may be wrong about that: a server that was cut off with us stops to lead after some ten seconds only.
const UNSEEN: Duration = Duration::from_secs(20);

/// A change: revision, key, value.
type Change = (u64, String, u64);

/// Who reads through one server: a watch of all, a watch of a part, and a view.
struct Reader {
    server: usize,
    all: Seen,
    part: Seen,
    view: View<u64>,
}

/// What a watch has brought.
struct Seen {
    events: Arc<Mutex<Events>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Events {
    changes: Vec<Change>,
    /// Anything else but the end of what was there.
    others: Vec<String>,
    initial: usize,
}

impl Seen {
    async fn by(watch: impl Fn() -> WatchBuilder<u64>) -> Self {
        let mut watch = watch().include_history().await.expect("a watch");
        let events = Arc::<Mutex<Events>>::default();
        let notes = events.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = watch.next().await {
                let mut notes = notes.lock().unwrap();
                match event {
                    Ok(WatchEvent::InitialDone) => notes.initial += 1,
                    Ok(WatchEvent::Change(change)) => match change.operation {
                        Operation::Put(value) => {
                            notes.changes.push((change.revision, change.key, value));
                        }
                        other => notes.others.push(format!("{other:?}")),
                    },
                    other => notes.others.push(format!("{other:?}")),
                }
            }
            notes.lock().unwrap().others.push("the end".to_owned());
        });
        Self { events, task }
    }

    fn last(&self) -> u64 {
        let events = self.events.lock().unwrap();
        events.changes.last().map_or(0, |(revision, ..)| *revision)
    }

    /// It has brought this, and the mark once, and nothing else.
    async fn is(&self, changes: &[Change]) {
        let last = changes.last().map_or(0, |(revision, ..)| *revision);
        until("the last change", async || self.last() >= last).await;
        let events = self.events.lock().unwrap();
        assert_eq!((events.initial, &events.others[..]), (1, &[][..]));
        let missing = changes.iter().filter(|it| !events.changes.contains(it));
        assert_eq!(missing.collect::<Vec<_>>(), [] as [&Change; 0]);
        assert_eq!(events.changes, changes);
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reader {
    async fn start(cluster: &TestCluster, server: usize) -> Self {
        let store = store(cluster, server).await;
        Self {
            server,
            all: Seen::by(|| store.watch()).await,
            part: Seen::by(|| store.under("k.1").expect("a prefix").watch()).await,
            view: store.view().await.expect("a view"),
        }
    }

    async fn has(&self, revision: u64) {
        let view = self.view.wait_for(revision);
        soon("the view", view).await.expect("it is kept");
        until("the watch", async || self.all.last() >= revision).await;
    }
}

/// A connection to one server.
async fn connect(cluster: &TestCluster, server: usize) -> jetstream::Context {
    let options = async_nats::ConnectOptions::new().ignore_discovered_servers();
    let client = options.connect(cluster.server(server).url()).await;
    jetstream::new(client.expect("a connection"))
}

/// The bucket, over a connection to one server.
async fn store(cluster: &TestCluster, server: usize) -> KvStore<u64> {
    KvStore::bind(connect(cluster, server).await, "b").expect("a name")
}

/// What was written, and when that was acknowledged.
#[derive(Clone, Default)]
struct Written {
    acknowledged: Arc<Mutex<Vec<(u64, Instant)>>>,
    /// The server through which is written.
    through: Arc<AtomicUsize>,
}

impl Written {
    /// Goes on writing, until it is aborted.
    async fn go_on(self, stores: Vec<KvStore<u64>>) {
        for number in 0.. {
            // What is not known to be written is written again: then it has two revisions.
            loop {
                let store = &stores[self.through.load(SeqCst)];
                let key = store.key(format!("k.{}.{}", number % 2, number % KEYS));
                let key = key.expect("a key");
                let put = tokio::time::timeout(Duration::from_secs(1), key.put(&number));
                if let Ok(Ok(revision)) = put.await {
                    let mut acknowledged = self.acknowledged.lock().unwrap();
                    acknowledged.push((revision, Instant::now()));
                    break;
                }
            }
            // A steady load, and no flood: a key's history must last until the end.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// The newest revision that was acknowledged so long ago.
    fn before(&self, age: Duration) -> u64 {
        let acknowledged = self.acknowledged.lock().unwrap();
        let mut old = acknowledged.iter().rev();
        old.find(|(_, at)| at.elapsed() >= age)
            .map_or(0, |(revision, _)| *revision)
    }

    fn last(&self) -> u64 {
        self.before(Duration::ZERO)
    }

    async fn more(&self, count: usize) {
        let before = self.count();
        until("it is written", async || self.count() >= before + count).await;
    }
}

/// Looks at views all the time: one that lacks what was written a while ago says that it is not connected.
async fn be_honest(readers: Arc<Vec<Reader>>, written: Written) {
    let mut since = [const { None::<Instant> }; 3];
    loop {
        for reader in readers.iter() {
            let (old, status) = (written.before(NOTICED), reader.view.status());
            let since = &mut since[reader.server];
            if status.revision >= old || !status.connected {
                *since = None;
                continue;
            }
            let lasts = since.get_or_insert_with(Instant::now).elapsed();
            assert!(
                lasts < UNSEEN,
                "on {}: {old} was written {NOTICED:?} ago, and for {lasts:?} it says {status:?}",
                reader.server
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn leader(cluster: &TestCluster) -> usize {
    cluster.stream_leader("KV_b").await.expect("a leader")
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Killed,
    Paused,
    CutOff,
}

/// A cluster with the bucket, and a connection to all its servers.
async fn start() -> (TestCluster, jetstream::Context) {
    let cluster = TestCluster::builder().partitions(true).advertise(false);
    let cluster = cluster.start().await.unwrap();
    let js = jetstream::new(async_nats::connect(cluster.urls()).await.unwrap());
    let config = jetstream::kv::Config {
        bucket: "b".to_owned(),
        history: HISTORY,
        num_replicas: 3,
        ..Default::default()
    };
    until("a bucket", async || {
        js.create_key_value(config.clone()).await.is_ok()
    })
    .await;
    (cluster, js)
}

async fn consumers(js: &jetstream::Context) -> Vec<Info> {
    let stream = js.get_stream("KV_b").await.expect("a stream");
    stream.consumers().try_collect().await.expect("consumers")
}

#[tokio::test]
async fn a_watch_leaves_a_replica_that_falls_behind_while_it_is_watched() {
    let (cluster, _) = start().await;
    let (leads, decides) = (leader(&cluster).await, cluster.meta_leader().await.unwrap());
    let js = connect(&cluster, leads).await;
    let store = KvStore::<u64>::bind(js.clone(), "b").unwrap();
    // Its consumer may be made on any of the three: it is wanted on one on which nothing else depends.
    let (mut watch, replica) = loop {
        until("no consumer", async || consumers(&js).await.is_empty()).await;
        let mut watch = store.watch().await.expect("a watch");
        let first = soon("the end of nothing", watch.next()).await;
        assert!(matches!(first, Some(Ok(WatchEvent::InitialDone))));
        let mut on = None;
        until("its consumer", async || {
            let cluster = consumers(&js).await.pop().and_then(|it| it.cluster);
            on = cluster.and_then(|it| it.leader);
            on.is_some()
        })
        .await;
        let servers = cluster.servers().iter();
        let on = servers
            .map(|it| Some(it.name()))
            .position(|name| name == on.as_deref());
        match on.expect("one of them") {
            on if on != leads && on != decides => break (watch, on),
            _ => drop(watch),
        }
    };
    cluster.hold_back(replica).await.unwrap();
    let key = store.key("k").unwrap();
    let revision = soon("the write", key.put(&1)).await.expect("two of three");
    let change = soon("the change", watch.next()).await;
    let Some(Ok(WatchEvent::Change(change))) = change else {
        panic!("{change:?}");
    };
    assert_eq!(change.revision, revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_and_views_go_on_through_faults_of_the_leader_and_say_when_they_are_old() {
    let (cluster, js) = start().await;
    let (mut stores, mut readers) = (Vec::new(), Vec::new());
    for server in 0..3 {
        stores.push(store(&cluster, server).await);
    }
    let written = Written::default();
    let writer = tokio::spawn(written.clone().go_on(stores));
    written.more(10).await;
    for server in 0..3 {
        readers.push(Reader::start(&cluster, server).await);
    }
    let readers = Arc::new(readers);
    let honest = tokio::spawn(be_honest(readers.clone(), written.clone()));

    for fault in [Fault::Killed, Fault::Paused, Fault::CutOff] {
        let old = leader(&cluster).await;
        written.through.store((old + 1) % 3, SeqCst);
        match fault {
            Fault::Killed => cluster.server(old).kill().await.unwrap(),
            Fault::Paused => cluster.server(old).pause().await.unwrap(),
            Fault::CutOff => cluster.cut_off(old).await.unwrap(),
        }
        until("another leader", async || leader(&cluster).await != old).await;
        written.more(40).await;
        let last = written.last();
        // Who has another server goes on meanwhile; who has none says so.
        for reader in readers.iter() {
            if reader.server != old {
                reader.has(last).await;
            } else {
                until("it is known to be old", async || {
                    !reader.view.status().connected
                })
                .await;
                assert!(reader.view.revision() < last);
            }
        }
        match fault {
            Fault::Killed => cluster.server(old).restart().await.unwrap(),
            Fault::Paused => cluster.server(old).resume().await.unwrap(),
            Fault::CutOff => cluster.rejoin(old).await.unwrap(),
        }
        cluster.wait_ready().await.unwrap();
        let last = written.last();
        for reader in readers.iter() {
            reader.has(last).await;
        }
        assert!(!honest.is_finished(), "{:?}", honest.await);
    }
    writer.abort();
    let _ = writer.await;
    honest.abort();
    let _ = honest.await;

    // Everything has come, once, in order, and nothing else was said.
    let mut kept = Vec::new();
    let bucket = store(&cluster, 0).await;
    for number in 0..KEYS {
        let key = bucket.key(format!("k.{}.{number}", number % 2)).unwrap();
        let history = key.history().await.expect("a history");
        assert!((history.len() as i64) < HISTORY, "nothing was overwritten");
        let changes = history.into_iter().map(|change| {
            let value = *change.value().expect("a value");
            (change.revision, change.key, value)
        });
        kept.extend(changes);
    }
    kept.sort_unstable();
    let last = kept.last().unwrap().0;
    let part = kept.iter().filter(|(_, key, _)| key.starts_with("k.1."));
    let part: Vec<Change> = part.cloned().collect();
    let latest: BTreeMap<&str, u64> = kept
        .iter()
        .map(|(_, key, value)| (&**key, *value))
        .collect();
    for reader in readers.iter() {
        reader.has(last).await;
        reader.all.is(&kept).await;
        reader.part.is(&part).await;
        let state = reader.view.snapshot();
        let state: BTreeMap<&str, u64> = state.iter().map(|e| (e.key(), *e.value())).collect();
        assert_eq!(state, latest);
    }
    drop(readers);
    let stream = js.get_stream("KV_b").await.unwrap();
    // What could not be deleted while nobody led, the server removes when nobody has listened for half a minute.
    until("every consumer is given up", async || {
        let left: Result<Vec<_>, _> = stream.consumers().try_collect().await;
        let given_up = |consumer: &Info| {
            let removed_after = consumer.config.inactive_threshold;
            !consumer.push_bound && removed_after == Duration::from_secs(30)
        };
        left.is_ok_and(|left| left.iter().all(given_up))
    })
    .await;
}
