//! Watches and views: from a put to its delivery to fifty watches in one process, and in fifty; and reads of a local copy.
//!
//! Values are the times at which they were put, so a watch knows how long each was on its way. All watches of the first row
//! are in one process together with the writer, which has a connection of its own; those of the second have a process each. Beside
//! the fifty stand one alone and none: what a put's way to the server and back takes, and what it costs, in any case.

use super::{CPU, P50, P99, Plan, RATE, Row, Samples, progress};
use crate::Result;
use crate::args::Args;
use crate::process::{child_line, cpu_time_of, exit_with_parent};
use crate::report::{Figure, Goal};
use async_nats::jetstream::{self, Context, kv};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use nats_service::{KvStore, WatchEvent};
use nats_service_testkit::TestServer;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

const WATCHES: usize = 50;
/// Puts in a second, each awaited: a quiet bucket, and a busy one.
const RATES: [u32; 2] = [400, 2_000];
const KEYS: u64 = 1_000;
/// Whose watches, and how many.
type Who = (&'static str, usize);
const OURS: Who = ("ours", WATCHES);
const THEIRS: Who = ("async-nats", WATCHES);
const ALONE: Who = ("ours", 1);
const NOBODY: Who = ("ours", 0);
/// Who else is measured.
const PROCESSES: Who = ("processes", WATCHES);
const VIEW: Who = ("view", 1);
const GET: Who = ("get", 1);
/// The value that ends a watch.
const END: u64 = 0;
/// What is allowed for everything beside the measuring.
const SETUP: Duration = Duration::from_secs(60);

/// From put to delivery, in microseconds.
#[derive(Debug, Serialize, Deserialize)]
struct Delivered {
    p50: f64,
    p99: f64,
    puts: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reads {
    view: f64,
    get: f64,
}

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        for rate in RATES {
            for who in [OURS, THEIRS, ALONE, NOBODY] {
                progress(format_args!(
                    "watch: round {round}, {} in one process, {}, {rate}/s",
                    who.1, who.0
                ));
                let (outcome, cpu) = watched(who, rate, plan).await?;
                samples.add((who, rate), P50, outcome.p50);
                samples.add((who, rate), P99, outcome.p99);
                samples.add((who, rate), CPU, cpu);
            }
        }
        progress(format_args!(
            "watch: round {round}, one in each of {WATCHES} processes"
        ));
        let outcome = processes(plan).await?;
        samples.add((PROCESSES, RATES[0]), P50, outcome.p50);
        samples.add((PROCESSES, RATES[0]), P99, outcome.p99);
        progress(format_args!("watch: round {round}, reads"));
        let reads = read(plan).await?;
        samples.add((VIEW, 0), RATE, reads.view);
        samples.add((GET, 0), RATE, reads.get);
    }
    let mut rows = Vec::new();
    for rate in RATES {
        rows.extend(in_one_process(&samples, rate));
    }
    rows.extend(elsewhere(&samples));
    Ok(rows)
}

/// The watches in one process, and the server's CPU time a put, in microseconds.
async fn watched((who, watches): Who, rate: u32, plan: Plan) -> Result<(Delivered, f64)> {
    let server = start().await?;
    let pid = server.pid().ok_or("the server ended")?;
    let before = cpu_time_of(pid)?;
    let [seconds, watches, rate] = [
        plan.seconds.to_string(),
        watches.to_string(),
        rate.to_string(),
    ];
    let mut arguments = vec![
        "watches",
        who,
        "--nats",
        server.url(),
        "--seconds",
        &seconds,
    ];
    arguments.extend(["--watches", &watches, "--rate", &rate]);
    let takes = SETUP + Duration::from_secs_f64(plan.seconds);
    let outcome: Delivered = serde_json::from_str(&child_line(&arguments, takes).await?)?;
    let cpu = (cpu_time_of(pid)? - before).as_secs_f64() * 1e6 / outcome.puts as f64;
    Ok((outcome, cpu))
}

async fn read(plan: Plan) -> Result<Reads> {
    let server = start().await?;
    let seconds = plan.seconds.to_string();
    let arguments = [
        "watches",
        "reads",
        "--nats",
        server.url(),
        "--seconds",
        &seconds,
    ];
    let takes = SETUP + Duration::from_secs_f64(plan.seconds);
    Ok(serde_json::from_str(&child_line(&arguments, takes).await?)?)
}

fn in_one_process(samples: &Samples<(Who, u32)>, rate: u32) -> [Row; 5] {
    let row = |who: Who, what: &str, metric, goal| {
        let what = format!("{rate} puts/s, {what}, less is better");
        let figure = |who| samples.figure((who, rate), metric);
        Row::new(what, "us", figure(who), figure(THEIRS), goal)
    };
    let third = Goal::RatioAtMost(1.0 / 3.0);
    [
        row(
            OURS,
            "50 watches against 50 watch_all: put to delivery, p50",
            P50,
            Goal::None,
        ),
        row(
            OURS,
            "50 watches against 50 watch_all: put to delivery, p99",
            P99,
            third,
        ),
        row(
            ALONE,
            "the least there is, one watch against 50 watch_all: put to delivery, p99",
            P99,
            Goal::None,
        ),
        row(
            OURS,
            "50 watches against 50 watch_all: the server's CPU a put, storing it included",
            CPU,
            third,
        ),
        row(
            NOBODY,
            "the least there is, no watch against 50 watch_all: the server's CPU a put",
            CPU,
            Goal::None,
        ),
    ]
}

fn elsewhere(samples: &Samples<(Who, u32)>) -> [Row; 4] {
    let bound = |what: &str, metric, most| {
        let what = format!("{WATCHES} watches in other processes: {what}, against the bound");
        let bound = Some(Figure::exactly(most));
        let figure = samples.figure((PROCESSES, RATES[0]), metric);
        Row::new(what, "us", figure, bound, Goal::RatioAtMost(1.0))
    };
    let view = samples.figure((VIEW, 0), RATE);
    [
        bound("put to delivery, p50", P50, 2_000.0),
        bound("put to delivery, p99", P99, 12_000.0),
        Row::new(
            "view.get, against kv.get awaited, more is better",
            "reads/s",
            view,
            samples.figure((GET, 0), RATE),
            Goal::RatioAtLeast(1_000.0),
        ),
        Row::new(
            "view.get in one thread, against the bound",
            "reads/s",
            view,
            Some(Figure::exactly(20e6)),
            Goal::RatioAtLeast(1.0),
        ),
    ]
}

async fn start() -> Result<TestServer> {
    let server = TestServer::start().await?;
    let config = kv::Config {
        bucket: "w".into(),
        ..kv::Config::default()
    };
    context(server.url())
        .await?
        .create_key_value(config)
        .await?;
    Ok(server)
}

async fn context(url: &str) -> Result<Context> {
    Ok(jetstream::new(async_nats::connect(url).await?))
}

/// One watch in each of many processes; the writer is here.
async fn processes(plan: Plan) -> Result<Delivered> {
    let server = start().await?;
    let js = context(server.url()).await?;
    let takes = SETUP + Duration::from_secs_f64(plan.seconds);
    let arguments = ["watches", "single", "--nats", server.url()];
    let children = try_join_all((0..WATCHES).map(|_| child_line(&arguments, takes)));
    let writing = async {
        let deadline = Instant::now() + SETUP;
        while js
            .get_stream("KV_w")
            .await?
            .cached_info()
            .state
            .consumer_count
            < WATCHES
        {
            if Instant::now() > deadline {
                return Err("the watches did not begin".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        write(&js, RATES[0], plan.seconds).await
    };
    let (lines, puts) = futures_util::future::try_join(children, writing).await?;
    let mut all = histogram()?;
    for line in lines {
        let micros: Vec<u64> = serde_json::from_str(&line)?;
        micros
            .into_iter()
            .for_each(|micros| all.saturating_record(micros));
    }
    Ok(delivered(&all, puts))
}

/// Puts what the time is, at a steady rate, and then the end. How many there were.
async fn write(js: &Context, rate: u32, seconds: f64) -> Result<u64> {
    let store = KvStore::<u64>::bind(js.clone(), "w")?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut n = 0;
    while Instant::now() < until {
        ticks.tick().await;
        store.key(format!("k.{}", n % KEYS))?.put(&now()).await?;
        n += 1;
    }
    store.key("end")?.put(&END).await?;
    Ok(n)
}

/// In microseconds; the same for all processes of a machine.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(1, |since| since.as_micros() as u64)
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

fn delivered(histogram: &Histogram<u64>, puts: u64) -> Delivered {
    Delivered {
        p50: histogram.value_at_quantile(0.5) as f64,
        p99: histogram.value_at_quantile(0.99) as f64,
        puts,
    }
}

/// The children.
pub(crate) fn child(args: &Args) -> Result<()> {
    // Fifty processes with a thread per core each would measure the scheduler.
    let mut runtime = match args.word(1)? {
        "single" => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        exit_with_parent();
        let js = context(&args.required::<String>("nats")?).await?;
        let line = match args.word(1)? {
            "single" => serde_json::to_string(&ours(&js).await?.await?)?,
            "reads" => serde_json::to_string(&reads(&js, args.required("seconds")?).await?)?,
            who => serde_json::to_string(&together(who, &js, args).await?)?,
        };
        println!("{line}");
        Ok(())
    })
}

async fn together(who: &str, js: &Context, args: &Args) -> Result<Delivered> {
    let mut watches = Vec::new();
    for _ in 0..args.required("watches")? {
        watches.push(match who {
            "ours" => tokio::spawn(ours(js).await?),
            _ => tokio::spawn(theirs(js).await?),
        });
    }
    // Until they have come together.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writer = context(&args.required::<String>("nats")?).await?;
    let puts = write(&writer, args.required("rate")?, args.required("seconds")?).await?;
    let mut all = histogram()?;
    for watch in watches {
        watch
            .await??
            .into_iter()
            .for_each(|micros| all.saturating_record(micros));
    }
    Ok(delivered(&all, puts))
}

type Watching = futures_util::future::BoxFuture<'static, Result<Vec<u64>>>;

/// How long each value was on its way.
async fn ours(js: &Context) -> Result<Watching> {
    let mut watch = KvStore::<u64>::bind(js.clone(), "w")?.watch().await?;
    Ok(Box::pin(async move {
        let mut micros = Vec::new();
        while let Some(event) = watch.next().await {
            let WatchEvent::Change(change) = event? else {
                continue;
            };
            match change.value() {
                Some(&END) | None => break,
                Some(put) => micros.push(now().saturating_sub(*put)),
            }
        }
        Ok(micros)
    }))
}

async fn theirs(js: &Context) -> Result<Watching> {
    let mut watch = js.get_key_value("w").await?.watch_all().await?;
    Ok(Box::pin(async move {
        let mut micros = Vec::new();
        while let Some(entry) = watch.next().await {
            match serde_json::from_slice(&entry?.value)? {
                END => break,
                put => micros.push(now().saturating_sub(put)),
            }
        }
        Ok(micros)
    }))
}

/// Reads in a second, by one thread: of the local copy, and one request after the other.
async fn reads(js: &Context, seconds: f64) -> Result<Reads> {
    let store = KvStore::<u64>::bind(js.clone(), "w")?;
    let keys: Vec<String> = (0..KEYS).map(|n| format!("user.profile.{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        store.key(key)?.put(&(n as u64)).await?;
    }
    let view = store.view().await?;
    let takes = Duration::from_secs_f64(seconds / 2.0);
    let (started, mut count) = (Instant::now(), 0_u64);
    while started.elapsed() < takes {
        for key in &keys {
            let entry = view.get(black_box(key))?;
            black_box(entry.map(|entry| *entry.value()));
        }
        count += KEYS;
    }
    let view = count as f64 / started.elapsed().as_secs_f64();
    let theirs = js.get_key_value("w").await?;
    let (started, mut count) = (Instant::now(), 0_u64);
    for key in keys.iter().cycle() {
        black_box(theirs.get(key).await?);
        count += 1;
        if started.elapsed() >= takes {
            break;
        }
    }
    let get = count as f64 / started.elapsed().as_secs_f64();
    Ok(Reads { view, get })
}
