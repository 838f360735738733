//! The benches: what is compared with what, in which rounds, and what each row promises. A further bench is a further file
//! here, and a line in [`run`] and in [`NAMES`].

mod compile;
mod compute;
mod echo;
mod faults;
mod instructions;
pub(crate) mod kv;
pub(crate) mod object;
mod overhead;
mod persist;
mod replicas;
mod smoke;
mod streaming;
pub(crate) mod watch;
mod writer;

use crate::Result;
use crate::args::Args;
use crate::contender::Contender;
use crate::process::{End, Load, Measured, Sending};
use crate::report::{Figure, Report, Row};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each with what it measures.
const NAMES: &[(&str, &str)] = &[
    (
        "echo",
        "throughput, latency and CPU of a cheap handler, at 1, 64 and 256 in flight",
    ),
    ("compute", "cores that a handler of one millisecond can use"),
    (
        "persist",
        "what keeping every answer in KV costs the callers of a handler that computes; give it long rounds",
    ),
    ("persist-echo", "the same of a handler that answers at once"),
    (
        "object",
        "speed and memory of uploads and downloads, against async-nats",
    ),
    (
        "kv",
        "many keys at once and a million names, against async-nats",
    ),
    ("compile", "what fifty methods cost to compile"),
    (
        "watch",
        "fifty watches in one process and in fifty, and reads of a local copy",
    ),
    (
        "replicas",
        "what reads by a consumer cost more in a bucket of three replicas",
    ),
    ("writer", "many values into one bucket"),
    (
        "streaming",
        "a stream of small items, against one message an item by hand",
    ),
    (
        "faults",
        "every fault of a cluster under load, and what it broke",
    ),
    (
        "overhead",
        "what a context, a deadline, one tower layer and tracing cost a request",
    ),
    (
        "instructions",
        "the same and a request itself in instructions, by valgrind",
    ),
];

/// How much to measure.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: usize,
    seconds: f64,
    /// Who plays our part. Another contender against itself shows how far two medians of one program lie apart here, and so
    /// what a difference means.
    ours: Contender,
}

impl Plan {
    /// Those of them that this binary holds, each with who plays its part.
    fn cast(self, contenders: &[Contender]) -> Vec<(Contender, Contender)> {
        let player = |it| if it == Contender::Ours { self.ours } else { it };
        let cast = contenders.iter().map(|it| (*it, player(*it)));
        cast.collect()
    }

    fn load(&self, sending: Sending) -> Load {
        Load {
            sending,
            warm_up: Duration::from_secs_f64((self.seconds / 3.0).min(1.0)),
            end: End::Seconds(self.seconds),
        }
    }
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let plan = Plan {
        rounds: args.optional("rounds")?.unwrap_or(5),
        seconds: args.optional("seconds")?.unwrap_or(3.0),
        ours: args.optional("ours")?.unwrap_or(Contender::Ours),
    };
    if plan.rounds == 0 || !plan.seconds.is_finite() || plan.seconds <= 0.0 {
        return Err("there is nothing to measure in that".into());
    }
    match args.command() {
        "list" => {
            for (name, what) in NAMES {
                println!("{name:<14}{what}");
            }
            Ok(())
        }
        "smoke" => smoke::run().await,
        "all" => {
            for (name, _) in NAMES {
                one(name, plan).await?;
            }
            Ok(())
        }
        name => one(name, plan).await,
    }
}

async fn one(name: &str, plan: Plan) -> Result<()> {
    let name = NAMES.iter().find(|(it, _)| *it == name);
    let (name, _) = *name.ok_or("no such bench: `list` names them")?;
    let load_before = load_average();
    let rows = match name {
        "echo" => echo::run(plan).await?,
        "compute" => compute::run(plan).await?,
        "overhead" => overhead::run(plan).await?,
        "instructions" => instructions::run(plan).await?,
        "persist" => persist::run(plan, persist::COMPUTE).await?,
        "persist-echo" => persist::run(plan, persist::ECHO).await?,
        "writer" => writer::run(plan).await?,
        "faults" => faults::run(plan).await?,
        "object" => object::run(plan).await?,
        "kv" => kv::run(plan).await?,
        "streaming" => streaming::run(plan).await?,
        "watch" => watch::run(plan).await?,
        "replicas" => replicas::run(plan).await?,
        _ => compile::run(plan).await?,
    };
    let report = Report {
        bench: name,
        ours: plan.ours.name(),
        rounds: plan.rounds,
        seconds: plan.seconds,
        cores: std::thread::available_parallelism()?.get(),
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        load_before,
        rows,
    };
    print!("{}", report.table());
    let file = report.write(&target().join("bench"))?;
    eprintln!("written: {}", file.display());
    Ok(())
}

/// The folder that cargo builds into, where our files and folders go, too.
fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => folder.into(),
        None => workspace().join("target"),
    }
}

fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Runnable threads, on average over the last minute.
fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// What was measured in all rounds, by who and what.
#[derive(Debug)]
struct Samples<K>(BTreeMap<(K, &'static str), Vec<f64>>);

impl<K: Ord + Copy> Samples<K> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn add(&mut self, who: K, what: &'static str, value: f64) {
        self.0.entry((who, what)).or_default().push(value);
    }

    /// The usual figures of a load.
    fn add_measured(&mut self, who: K, measured: &Measured) {
        let outcome = &measured.outcome;
        self.add(who, RATE, outcome.rate);
        self.add(who, P50, outcome.p50_us);
        self.add(who, P99, outcome.p99_us);
        self.add(who, CPU, measured.cpu_per_request());
        self.add(who, ERRORS, outcome.errors as f64);
    }

    fn figure(&self, who: K, what: &'static str) -> Option<Figure> {
        Figure::of(self.0.get(&(who, what))?)
    }

    /// The sum over all rounds.
    fn sum(&self, who: K, what: &'static str) -> Option<Figure> {
        let values = self.0.get(&(who, what))?;
        Some(Figure::exactly(values.iter().sum()))
    }
}

const RATE: &str = "rate";
const P50: &str = "p50";
const P99: &str = "p99";
const CPU: &str = "cpu";
const ERRORS: &str = "errors";

/// Says where we are, since a bench takes minutes.
fn progress(text: std::fmt::Arguments<'_>) {
    eprintln!("{text}");
}
