//! Renames in a replicated bucket that takes atomic batches, while its leader is killed, stands still, or is cut off.

use async_nats::jetstream;
use nats_service::{BucketSettings, ObjectStore, StoreError};
use nats_service_testkit::TestCluster;
use nats_service_tests::{soon, too_old, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Objects, each of which goes from one of two names to the other and back.
const OBJECTS: usize = 6;

/// A connection to these servers and no others.
async fn connect(urls: Vec<&str>) -> jetstream::Context {
    let options = async_nats::ConnectOptions::new().ignore_discovered_servers();
    jetstream::new(options.connect(urls).await.expect("a connection"))
}

/// One object, and its two names.
struct Wanderer {
    store: ObjectStore<()>,
    names: [String; 2],
    bytes: Vec<u8>,
    /// How often it was renamed, as far as anybody was told; and attempts of which nobody knows.
    renamed: AtomicU64,
    unknown: AtomicU64,
}

impl Wanderer {
    async fn new(store: ObjectStore<()>, number: usize) -> Self {
        let bytes = format!("the bytes of {number}").into_bytes();
        let names = ["a", "b"].map(|name| format!("{name}{number}"));
        let first = store.object(&*names[0]).expect("a name");
        first.put_reader(&bytes[..]).await.expect("an upload");
        Self {
            store,
            names,
            bytes,
            renamed: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }

    /// Renames it until that is enough.
    async fn wander(self: Arc<Self>, enough: Arc<AtomicBool>) {
        while !enough.load(SeqCst) {
            let at = usize::from(self.renamed.load(SeqCst) % 2 == 1);
            let (from, to) = (&self.names[at], &self.names[1 - at]);
            let mut unknown = false;
            loop {
                let object = self.store.object(&**from).expect("a name");
                match object.rename(&**to).await {
                    Ok(info) => {
                        assert_eq!(info.name, *to);
                        break;
                    }
                    Err(StoreError::Timeout | StoreError::Unavailable { .. }) => {
                        unknown = true;
                        self.unknown.fetch_add(1, SeqCst);
                    }
                    // One of which nobody knew had its effect.
                    Err(StoreError::ObjectNotFound { name }) if unknown && name == *from => break,
                    Err(error) => panic!("{from} to {to}, unknown {unknown}: {error:?}"),
                }
            }
            self.renamed.fetch_add(1, SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_is_whole_or_not_at_all_whatever_happens_to_the_leader() {
    if too_old(2).await {
        return;
    }
    let cluster = TestCluster::builder().partitions(true).advertise(false);
    let cluster = cluster.start().await.unwrap();
    let js = connect(cluster.urls()).await;
    let settings = || BucketSettings::new("o").atomic(true).replicas(3);
    let mut store = None;
    until("a bucket", async || {
        store = ObjectStore::<()>::create(js.clone(), settings()).await.ok();
        store.is_some()
    })
    .await;
    let store = store.unwrap();

    let enough = Arc::<AtomicBool>::default();
    let (mut wanderers, mut tasks) = (Vec::new(), Vec::new());
    for number in 0..OBJECTS {
        // Each knows one server only: a client that is connected to one that stands still takes minutes to notice.
        let js = connect(vec![cluster.server(number % 3).url()]).await;
        let store = ObjectStore::bind(js, "o").unwrap();
        let wanderer = Arc::new(Wanderer::new(store, number).await);
        tasks.push(tokio::spawn(wanderer.clone().wander(enough.clone())));
        wanderers.push(wanderer);
    }
    let counts = || {
        wanderers
            .iter()
            .map(|it| it.renamed.load(SeqCst))
            .collect::<Vec<_>>()
    };
    let go_on = async |what: &str, old: Option<usize>| {
        let before = counts();
        until(what, async || {
            assert!(
                tasks.iter().all(|task| !task.is_finished()),
                "somebody gave up"
            );
            // Whoever has only the server that is lost waits for it.
            let alone = |number: usize| Some(number % 3) == old;
            let now = counts().into_iter().zip(&before).enumerate();
            now.into_iter()
                .all(|(number, (now, before))| alone(number) || now >= before + 5)
        })
        .await;
    };
    go_on("renames", None).await;
    for fault in ["killed", "paused", "cut off"] {
        let old = cluster.stream_leader("OBJ_o").await.expect("a leader");
        match fault {
            "killed" => cluster.server(old).kill().await.unwrap(),
            "paused" => cluster.server(old).pause().await.unwrap(),
            _ => cluster.cut_off(old).await.unwrap(),
        }
        go_on(fault, Some(old)).await;
        match fault {
            "killed" => cluster.server(old).restart().await.unwrap(),
            "paused" => cluster.server(old).resume().await.unwrap(),
            _ => cluster.rejoin(old).await.unwrap(),
        }
        cluster.wait_ready().await.unwrap();
        go_on("all again", None).await;
    }
    enough.store(true, SeqCst);
    for task in tasks {
        soon("the last rename", task).await.unwrap();
    }
    for wanderer in &wanderers {
        let at = usize::from(wanderer.renamed.load(SeqCst) % 2 == 1);
        let object = |at: usize| store.object(&*wanderer.names[at]).unwrap();
        // A replica may have the last one a little later.
        until("the last name", async || {
            let (old, new) = (object(1 - at).bytes().await, object(at).bytes().await);
            matches!((old, new), (Ok(None), Ok(Some(bytes))) if bytes == wanderer.bytes)
        })
        .await;
    }
    let unknown = wanderers
        .iter()
        .map(|it| it.unknown.load(SeqCst))
        .sum::<u64>();
    println!("{:?} renames, {unknown} attempts unknown", counts());
}
