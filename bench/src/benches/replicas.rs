//! What a bucket of three replicas costs those who read by a consumer, which the server makes on any of them: a read is over when
//! what it brought is proven to reach what the leader had. Beside it the same reads of a bucket with one copy, in one cluster.
//!
//! The last revision of either bucket is of a key that nobody reads, so that the proof is not what is read.

use super::{Plan, Row, Samples, progress};
use crate::Result;
use crate::report::Goal;
use async_nats::jetstream::{self, kv};
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{KvStore, WatchEvent};
use nats_service_testkit::TestCluster;
use std::time::{Duration, Instant};

/// Keys that are read, under one prefix, and the revisions of each.
const KEYS: usize = 10;
const REVISIONS: u64 = 5;
/// How often each read is made in a round.
const PASSES: usize = 40;
/// How long a new bucket of several replicas may take until it has a leader.
const LED_WITHIN: Duration = Duration::from_secs(10);

/// The buckets, by their replicas.
const THREE: usize = 3;
const ONE: usize = 1;

const READS: [Read; 5] = [
    Read::History,
    Read::Keys,
    Read::WatchKey,
    Read::WatchPrefix,
    Read::WatchNothing,
];

#[derive(Debug, Clone, Copy)]
enum Read {
    History,
    Keys,
    WatchKey,
    WatchPrefix,
    WatchNothing,
}

impl Read {
    fn what(self) -> &'static str {
        match self {
            Self::History => "the history of a key",
            Self::Keys => "the keys under a prefix",
            Self::WatchKey => "the first end of a watch of a key",
            Self::WatchPrefix => "the first end of a watch of a prefix",
            Self::WatchNothing => "the first end of a watch of a key that is not there",
        }
    }

    /// The names under which samples are kept: the median and the worst of a round.
    fn metrics(self) -> (&'static str, &'static str) {
        match self {
            Self::History => ("history p50", "history max"),
            Self::Keys => ("keys p50", "keys max"),
            Self::WatchKey => ("watch key p50", "watch key max"),
            Self::WatchPrefix => ("watch prefix p50", "watch prefix max"),
            Self::WatchNothing => ("watch nothing p50", "watch nothing max"),
        }
    }

    async fn once(self, store: &KvStore<u64>) -> Result<()> {
        let found = match self {
            Self::History => store.key("k.0")?.history().await?.len() as u64 == REVISIONS,
            Self::Keys => {
                let keys = store.under("k")?.keys().await?;
                keys.try_collect::<Vec<_>>().await?.len() == KEYS
            }
            Self::WatchKey => initial(store.key("k.0")?.watch()).await? == 1,
            Self::WatchPrefix => initial(store.under("k")?.watch()).await? == KEYS,
            Self::WatchNothing => initial(store.key("none")?.watch()).await? == 0,
        };
        found.then_some(()).ok_or_else(|| "not all was read".into())
    }
}

/// How many values there were.
async fn initial(watch: nats_service::WatchBuilder<u64>) -> Result<usize> {
    let mut watch = watch.await?;
    let mut values = 0;
    while let Some(event) = watch.next().await {
        match event? {
            WatchEvent::InitialDone => return Ok(values),
            _ => values += 1,
        }
    }
    Err("the watch has ended".into())
}

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let cluster = TestCluster::start().await?;
    let js = jetstream::new(async_nats::connect(cluster.urls()).await?);
    let (three, one) = (bucket(&js, THREE).await?, bucket(&js, ONE).await?);
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        for read in READS {
            for (replicas, store) in [(THREE, &three), (ONE, &one)] {
                progress(format_args!(
                    "replicas: round {round}, {replicas}, {}",
                    read.what()
                ));
                let mut times = Vec::with_capacity(PASSES);
                for _ in 0..PASSES {
                    let began = Instant::now();
                    read.once(store).await?;
                    times.push(began.elapsed().as_secs_f64() * 1e3);
                }
                times.sort_by(f64::total_cmp);
                let (p50, worst) = read.metrics();
                samples.add(replicas, p50, times[PASSES / 2]);
                samples.add(replicas, worst, times[PASSES - 1]);
            }
        }
    }
    let mut rows = Vec::new();
    for read in READS {
        let (p50, worst) = read.metrics();
        let mut row = |what: &str, metric, goal| {
            rows.push(Row::new(
                format!("{}, {what}; with one replica beside it", read.what()),
                "ms",
                samples.figure(THREE, metric),
                samples.figure(ONE, metric),
                goal,
            ));
        };
        row("median", p50, Goal::ExcessAtMost(5.0));
        row("worst", worst, Goal::None);
    }
    Ok(rows)
}

async fn bucket(js: &jetstream::Context, replicas: usize) -> Result<KvStore<u64>> {
    let name = format!("r{replicas}");
    let config = kv::Config {
        bucket: name.clone(),
        history: 10,
        num_replicas: replicas,
        ..kv::Config::default()
    };
    js.create_key_value(config).await?;
    let store = KvStore::bind(js.clone(), name)?;
    let began = Instant::now();
    while let Err(error) = store.key("first")?.put(&0).await {
        if began.elapsed() > LED_WITHIN {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for revision in 0..REVISIONS {
        for key in 0..KEYS {
            store.key(format!("k.{key}"))?.put(&revision).await?;
        }
    }
    store.key("last")?.put(&0).await?;
    Ok(store)
}
