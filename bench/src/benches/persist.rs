//! A service with its answers kept in KV, against the same without, at half the load that saturates it: what the caller feels
//! of persistence, and whether every answer is in the bucket in the end. With a handler that computes for a millisecond, and, as a
//! bench of its own, with one that answers at once, where the write is most of the work.
//!
//! The saturating load is that of the whole promise, the writes included, and found with requests that come at a fixed rate. Beside
//! ours stands what a user would write by hand: publish the answer, then spawn a `put`.

use super::{CPU, ERRORS, P50, P99, Plan, Row, Samples, progress};
use crate::contender::{BUCKET, Contender, Workload};
use crate::process::{Measured, Sending, Service, cpu_time_of};
use crate::report::Goal;
use crate::{Result, work};
use nats_service_testkit::TestServer;
use std::time::{Duration, Instant};

/// How long the bucket may stand still before what is missing counts as lost.
const SETTLED: Duration = Duration::from_secs(5);

/// What is kept, the same without, and the rate at which the search for the saturating load begins.
type Pair = (Workload, Workload, f64);

pub(super) const COMPUTE: Pair = (Workload::KeptCompute, Workload::Compute, 400.0);
pub(super) const ECHO: Pair = (Workload::KeptEcho, Workload::Echo, 20_000.0);

/// How that search goes on, how long it stays at one rate, and what counts as keeping up.
const STEP: f64 = 1.25;
const AT_ONE: f64 = 3.0;
const KEPT_UP: f64 = 0.98;
/// Half of the answers take longer, or the last write comes later: then work piles up.
const BACKLOG: Duration = Duration::from_millis(20);

const CONTENDERS: [Contender; 2] = [Contender::Ours, Contender::Bare];
const SATURATING: &str = "saturating";
const ENTRIES: &str = "entries";
const ANSWERED: &str = "answered";
const SERVER_CPU: &str = "server's CPU";

type Who = (Contender, Workload);

pub(super) async fn run(plan: Plan, (kept, plain, first_rate): Pair) -> Result<Vec<Row>> {
    let steps = work::calibrate();
    let cast = plan.cast(&CONTENDERS);
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        for (contender, player) in cast.iter().copied() {
            let server = TestServer::start().await?;
            let service = Service::start(server.url(), player, kept, steps).await?;
            let saturating = saturate(plan, &server, &service, first_rate).await?;
            progress(format_args!(
                "persist: round {round}, {} {} saturates at {saturating:.0}/s",
                contender.name(),
                kept.name()
            ));
            samples.add((contender, kept), SATURATING, saturating);
        }
    }
    // One rate for everybody, or else the two ways of keeping could not be compared.
    let (first, _) = *cast.first().ok_or("nobody to measure")?;
    let saturating = samples.figure((first, kept), SATURATING);
    let rate = (saturating.map_or(0.0, |figure| figure.median) / 2.0).round();
    for round in 1..=plan.rounds {
        for (contender, player) in cast.iter().copied() {
            for workload in [plain, kept] {
                progress(format_args!(
                    "persist: round {round}, {} {}, {rate}/s",
                    contender.name(),
                    workload.name()
                ));
                let server = TestServer::start().await?;
                let service = Service::start(server.url(), player, workload, steps).await?;
                let who = (contender, workload);
                at_rate(plan, &server, &service, rate, who, &mut samples).await?;
            }
        }
    }
    let mut rows = vec![Row::new(
        format!(
            "{}: saturating load, theirs by hand, more is better; half of {}'s is the load below",
            kept.name(),
            first.name()
        ),
        "requests/s",
        samples.figure((Contender::Ours, kept), SATURATING),
        samples.figure((Contender::Bare, kept), SATURATING),
        Goal::None,
    )];
    for (contender, _) in cast {
        rows.extend(compare(&samples, contender, (kept, plain), rate));
    }
    if first == Contender::Ours {
        let (ours, by_hand) = ((Contender::Ours, kept), (Contender::Bare, kept));
        for (what, metric) in [("p50", P50), ("p99", P99), ("CPU per request", CPU)] {
            rows.push(Row::new(
                format!("{}, theirs by hand: {what}, less is better", kept.name()),
                "us",
                samples.figure(ours, metric),
                samples.figure(by_hand, metric),
                Goal::None,
            ));
        }
    }
    Ok(rows)
}

/// Kept against not kept, both of one contender. Only ours has promised anything.
fn compare(
    samples: &Samples<Who>,
    contender: Contender,
    (kept, plain): (Workload, Workload),
    rate: f64,
) -> Vec<Row> {
    let promised = contender == Contender::Ours;
    let goal = |goal| if promised { goal } else { Goal::None };
    let by_hand = if promised {
        ""
    } else {
        "(not ours, for comparison) by hand, "
    };
    let name = format!("{by_hand}{} / {}", kept.name(), plain.name());
    let (kept, plain) = ((contender, kept), (contender, plain));
    let row = |what: &str, metric, goal| {
        let what = format!("{name}, {rate}/s: {what}, less is better");
        let figures = (samples.figure(kept, metric), samples.figure(plain, metric));
        Row::new(what, "us", figures.0, figures.1, goal)
    };
    vec![
        row("p50", P50, goal(Goal::RatioAtMost(1.1))),
        row("p99", P99, goal(Goal::RatioAtMost(1.1))),
        row("CPU per request", CPU, Goal::None),
        row("the nats-server's CPU per request", SERVER_CPU, Goal::None),
        Row::new(
            format!("{name}: without a proper answer, all rounds"),
            "requests",
            samples.sum(kept, ERRORS),
            samples.sum(plain, ERRORS),
            goal(Goal::Zero),
        ),
        Row::new(
            format!("{name}: in the bucket / answered, all rounds"),
            "entries",
            samples.sum(kept, ENTRIES),
            samples.sum(kept, ANSWERED),
            goal(Goal::Equal),
        ),
    ]
}

/// The highest rate that is kept up with: answers come as fast as requests go, and the last one is stored soon after. Sought
/// with the kind of load that is measured afterwards, for requests that come one by one cost more than those that come in
/// bunches, and half of what a closed loop reaches would be more than half of what there is.
async fn saturate(plan: Plan, server: &TestServer, service: &Service, first: f64) -> Result<f64> {
    let plan = Plan {
        seconds: plan.seconds.min(AT_ONE),
        ..plan
    };
    let (mut best, mut rate, mut answered) = (0.0, first, 0);
    loop {
        let load = plan.load(Sending::Rate(rate));
        let outcome = service.measure(&load).await?.outcome;
        let ended = Instant::now();
        answered += outcome.answered();
        let (_, last) = stored(server.url(), answered).await?;
        let in_time = outcome.rate >= rate * KEPT_UP && outcome.p50_us < BACKLOG.as_micros() as f64;
        if !in_time || last.saturating_duration_since(ended) > BACKLOG {
            return Ok(best);
        }
        best = rate;
        rate *= STEP;
    }
}

async fn at_rate(
    plan: Plan,
    server: &TestServer,
    service: &Service,
    rate: f64,
    who: Who,
    samples: &mut Samples<Who>,
) -> Result<()> {
    let load = plan.load(Sending::Rate(rate));
    let id = server.pid().ok_or("the server ended")?;
    let before = cpu_time_of(id)?;
    let measured: Measured = service.measure(&load).await?;
    // The warm-up's requests are in it, and so is their time.
    let requests = rate * (load.warm_up.as_secs_f64() + plan.seconds);
    let cpu = (cpu_time_of(id)? - before).as_secs_f64() * 1e6 / requests;
    samples.add(who, SERVER_CPU, cpu);
    samples.add_measured(who, &measured);
    let (_, workload) = who;
    if workload.is_kept() {
        let answered = measured.outcome.answered();
        let (entries, _) = stored(server.url(), answered).await?;
        samples.add(who, ENTRIES, entries as f64);
        samples.add(who, ANSWERED, answered as f64);
    }
    Ok(())
}

/// Waits until the bucket holds that many entries, or stands still; how many it holds, and since when.
///
/// The bucket keeps one revision of a key and every request has its own, so that messages are keys.
async fn stored(url: &str, expected: u64) -> Result<(u64, Instant)> {
    let nats = async_nats::connect(url).await?;
    let jetstream = async_nats::jetstream::new(nats);
    let mut stream = jetstream.get_stream(format!("KV_{BUCKET}")).await?;
    let (mut entries, mut since) = (0, Instant::now());
    loop {
        let now = stream.info().await?.state.messages;
        if now != entries {
            (entries, since) = (now, Instant::now());
        }
        if entries >= expected || since.elapsed() > SETTLED {
            return Ok((entries, since));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
