//! Many keys of one bucket: a thousand values, got in one round trip and as the users of async-nats get them; and the names of
//! a million keys, by both listings: how fast, and in how much memory.
//!
//! Each reader is a process of its own, so that its peak memory is its own. All read the same bucket on a file store.

use super::object::memory;
use super::{Plan, Row, Samples, progress};
use crate::Result;
use crate::args::Args;
use crate::process::{child_line, exit_with_parent};
use crate::report::Goal;
use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nats_service::KvStore;
use nats_service_testkit::TestServer;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

const BUCKET: &str = "b";
const KEYS: usize = 1_000_000;
const MANY: usize = 1000;
/// As users of `kv.get` go about it who do not wait for each.
const AT_ONCE: usize = 256;
/// How often a thousand keys are got in one process; the first time warms it up.
const PASSES: usize = 11;
/// Acknowledgements in flight while the bucket is filled.
const WINDOW: usize = 2000;
/// A reader that takes longer hangs.
const TAKES: Duration = Duration::from_secs(120);

const READERS: [&str; 5] = [
    "get_many",
    "get, one after another",
    "get, 256 at once",
    "keys, ours",
    "keys, async-nats",
];
const MS: &str = "ms";
const EXTRA: &str = "extra";

/// What a reader says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    /// Of one pass, the median.
    seconds: f64,
    found: usize,
    /// Resident memory before it began, and at most, in KiB.
    idle: u64,
    peak: u64,
}

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let server = TestServer::start().await?;
    progress(format_args!("kv: {KEYS} keys are written"));
    fill(server.url()).await?;
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        for reader in READERS {
            progress(format_args!("kv: round {round}, {reader}"));
            let arguments = ["keys", reader, "--nats", server.url()];
            let line = child_line(&arguments, TAKES).await?;
            let outcome: Outcome = serde_json::from_str(&line)?;
            let expected = if reader.starts_with("keys") {
                KEYS
            } else {
                MANY
            };
            if outcome.found != expected {
                return Err(format!("{reader} found {} of {expected}", outcome.found).into());
            }
            samples.add(reader, MS, outcome.seconds * 1e3);
            let extra = outcome.peak.saturating_sub(outcome.idle);
            samples.add(reader, EXTRA, extra as f64 / 1024.0);
        }
    }
    let [many, sequential, concurrent, ours, theirs] = READERS;
    let row = |what: String, unit, metric, (one, two), goal| {
        let figures = (samples.figure(one, metric), samples.figure(two, metric));
        Row::new(what, unit, figures.0, figures.1, goal)
    };
    // Times, so that less is better: a twentieth is twenty times as fast.
    let faster = |times: f64| Goal::RatioAtMost(1.0 / times);
    Ok(vec![
        row(
            format!("get_many of {MANY} keys, against `kv.get` one after another: less is better"),
            "ms",
            MS,
            (many, sequential),
            faster(20.0),
        ),
        row(
            format!(
                "get_many of {MANY} keys, against `kv.get` with {AT_ONCE} at once: less is better"
            ),
            "ms",
            MS,
            (many, concurrent),
            faster(1.6),
        ),
        row(
            format!("keys of {KEYS}, against `kv.keys()`: less is better"),
            "ms",
            MS,
            (ours, theirs),
            faster(1.0),
        ),
        row(
            format!("keys of {KEYS}: memory above idle at most, theirs beside it"),
            "MiB",
            EXTRA,
            (ours, theirs),
            Goal::None,
        ),
    ])
}

async fn fill(url: &str) -> Result<()> {
    let js = jetstream::new(async_nats::connect(url).await?);
    let config = kv::Config {
        bucket: BUCKET.into(),
        ..kv::Config::default()
    };
    js.create_key_value(config).await?;
    let value = Bytes::from(format!("\"{}\"", "x".repeat(126)));
    let writes = stream::iter(0..KEYS).map(|i| {
        let (js, value) = (&js, value.clone());
        async move {
            let ack = js
                .publish(format!("$KV.{BUCKET}.{}", key(i)), value)
                .await?;
            ack.await?;
            Ok::<_, jetstream::context::PublishError>(())
        }
    });
    writes
        .buffer_unordered(WINDOW)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    Ok(())
}

/// Two tokens, as keys have.
fn key(i: usize) -> String {
    format!("user.{i:07}")
}

/// The child: one reader, as a line of JSON.
#[tokio::main]
pub(crate) async fn read(args: &Args) -> Result<()> {
    exit_with_parent();
    let url: String = args.required("nats")?;
    let js = jetstream::new(async_nats::connect(url).await?);
    // Everything that a first request brings along belongs to the idle process.
    let theirs = js.get_key_value(BUCKET).await?;
    let ours = KvStore::<String>::bind(js, BUCKET)?;
    // Spread over the bucket.
    let wanted: Vec<String> = (0..MANY).map(|i| key(i * (KEYS / MANY))).collect();
    let reader = args.word(1)?;
    let passes = if reader.starts_with("keys") {
        1
    } else {
        PASSES
    };
    let idle = memory("VmRSS:")?;
    let (mut times, mut found) = (Vec::new(), 0);
    for _ in 0..passes {
        let began = Instant::now();
        found = match reader {
            "get_many" => ours.get_many(wanted.clone()).await?.len(),
            "get, one after another" => {
                let mut found = 0;
                for key in &wanted {
                    found += usize::from(theirs.get(key.as_str()).await?.is_some());
                }
                found
            }
            "get, 256 at once" => {
                let gets = stream::iter(&wanted).map(|key| theirs.get(key.as_str()));
                let gets = gets.buffer_unordered(AT_ONCE);
                let count =
                    async |count, value: Option<_>| Ok(count + usize::from(value.is_some()));
                gets.try_fold(0, count).await?
            }
            "keys, ours" => {
                let keys = ours.keys().await?;
                keys.try_fold(0, async |count, _| Ok(count + 1)).await?
            }
            _ => {
                let keys = theirs.keys().await?;
                keys.try_fold(0, async |count, _| Ok(count + 1)).await?
            }
        };
        times.push(began.elapsed().as_secs_f64());
    }
    if passes > 1 {
        times.remove(0);
    }
    times.sort_by(f64::total_cmp);
    let outcome = Outcome {
        seconds: times[times.len() / 2],
        found,
        idle,
        peak: memory("VmHWM:")?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}
