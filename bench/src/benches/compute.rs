//! A handler that computes for a millisecond, 16 in flight: whether a service uses the cores that it has. The work is a counted
//! number of steps, calibrated once for all contenders, so that throughput is work done and not time passed.
//!
//! The cores are shared with the nats-server and the load, so the rows also say who had how much of them, and what they would
//! have done with nobody to talk to: what is left to gain is where they were idle.

use super::{CPU, ERRORS, P99, Plan, RATE, Row, Samples, progress};
use crate::contender::{Contender, Workload};
use crate::process::{Measured, Sending, Service, cpu_time_of};
use crate::report::{Figure, Goal};
use crate::{Result, work};
use nats_service_testkit::TestServer;
use std::time::Duration;

const CONTENDERS: [Contender; 4] = [
    Contender::Ours,
    Contender::Bare,
    Contender::BareSpawn,
    Contender::ServiceModule,
];
const IN_FLIGHT: usize = 16;
const HANDLER: Duration = Duration::from_millis(1);

/// Who has the cores, in per cent of all of them.
const SHARES: [&str; 5] = [
    "the service",
    "the nats-server",
    "the load",
    "anything else",
    "nobody",
];
/// What they could do at the most, in handlers a second.
const MACHINE: &str = "machine";
/// What of it the nats-server and the load leave.
const LEFT: &str = "left";

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let steps = work::calibrate(HANDLER);
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        let time = Duration::from_secs_f64(plan.seconds);
        let machine = tokio::task::spawn_blocking(move || work::rate_on_all_cores(steps, time));
        let machine = machine.await??;
        for (contender, player) in plan.cast(&CONTENDERS) {
            progress(format_args!("compute: round {round}, {}", contender.name()));
            let server = TestServer::start().await?;
            let id = server.pid().ok_or("the server is gone")?;
            let service = Service::start(server.url(), player, Workload::Compute, steps).await?;
            let load = plan.load(Sending::InFlight(IN_FLIGHT));
            let (measured, at_start) = service.measure_from(&load, || cpu_time_of(id)).await?;
            let shares = shares(&measured, cpu_time_of(id)? - at_start);
            for (what, share) in SHARES.into_iter().zip(shares) {
                samples.add(contender, what, share);
            }
            let [_, server, load, ..] = shares;
            samples.add(contender, MACHINE, machine);
            samples.add(contender, LEFT, machine * (100.0 - server - load) / 100.0);
            samples.add_measured(contender, &measured);
        }
    }
    Ok(rows(&samples))
}

/// As in [`SHARES`].
fn shares(measured: &Measured, server: Duration) -> [f64; 5] {
    let all = measured.machine.all.as_secs_f64();
    let share = |time: f64| 100.0 * time / all;
    let [service, server, idle] =
        [measured.cpu, server, measured.machine.idle].map(|time| share(time.as_secs_f64()));
    let load = share(measured.outcome.cpu);
    // The clocks are not read at one moment.
    let rest = (100.0 - service - server - load - idle).max(0.0);
    [service, server, load, rest, idle]
}

fn rows(samples: &Samples<Contender>) -> Vec<Row> {
    let ours = |metric| samples.figure(Contender::Ours, metric);
    let row = |what: String, unit, metric, theirs: Option<Figure>, goal| {
        Row::new(what, unit, ours(metric), theirs, goal)
    };
    let mut rows = Vec::new();
    for theirs in &CONTENDERS[1..] {
        // A task per request uses every core as well: against that the ratio is to be near one, and says nothing of cores.
        let goal = match theirs {
            Contender::Bare => Goal::RatioAtLeast(1.9),
            _ => Goal::None,
        };
        for (what, unit, metric, goal) in [
            ("throughput, more is better", "requests/s", RATE, goal),
            ("p99, less is better", "us", P99, Goal::None),
            ("CPU per request, less is better", "us", CPU, Goal::None),
        ] {
            let what = format!("against {}: {what}", theirs.name());
            rows.push(row(
                what,
                unit,
                metric,
                samples.figure(*theirs, metric),
                goal,
            ));
        }
        let errors = |who| samples.sum(who, ERRORS);
        let what = "without a proper answer, all rounds";
        rows.push(Row::new(
            format!("against {}: {what}", theirs.name()),
            "requests",
            errors(Contender::Ours),
            errors(*theirs),
            Goal::Zero,
        ));
        rows.extend(SHARES.map(|who| {
            let what = format!("against {}: share of the cores, {who}", theirs.name());
            row(what, "%", who, samples.figure(*theirs, who), Goal::None)
        }));
    }
    rows.extend([
        row(
            "against threads that only compute: throughput".into(),
            "requests/s",
            RATE,
            ours(MACHINE),
            Goal::None,
        ),
        row(
            "against what the nats-server and the load leave of those: throughput".into(),
            "requests/s",
            RATE,
            ours(LEFT),
            Goal::None,
        ),
        Row::new(
            "the most there is, threads that only compute, against bare: throughput",
            "requests/s",
            ours(MACHINE),
            samples.figure(Contender::Bare, RATE),
            Goal::None,
        ),
    ]);
    rows
}
