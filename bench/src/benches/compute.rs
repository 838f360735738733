//! A handler that computes for a millisecond, 16 in flight: whether a service uses the cores that it has. Taken both ways: as a
//! counted number of steps, calibrated once for all contenders, so that throughput is work done; and by the clock, so that
//! throughput is how many handlers run at once.
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
const WORKLOADS: [Workload; 2] = [Workload::Compute, Workload::Clock];
const IN_FLIGHT: usize = 16;

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

type Who = (Contender, Workload);

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let steps = work::calibrate();
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        let time = Duration::from_secs_f64(plan.seconds);
        let machine = tokio::task::spawn_blocking(move || work::rate_on_all_cores(steps, time));
        let machine = machine.await??;
        for workload in WORKLOADS {
            for (contender, player) in plan.cast(&CONTENDERS) {
                progress(format_args!(
                    "compute: round {round}, {} {}",
                    contender.name(),
                    workload.name()
                ));
                let server = TestServer::start().await?;
                let id = server.pid().ok_or("the server is gone")?;
                let service = Service::start(server.url(), player, workload, steps).await?;
                let load = plan.load(Sending::InFlight(IN_FLIGHT));
                let (measured, at_start) = service.measure_from(&load, || cpu_time_of(id)).await?;
                let shares = shares(&measured, cpu_time_of(id)? - at_start);
                let who = (contender, workload);
                for (what, share) in SHARES.into_iter().zip(shares) {
                    samples.add(who, what, share);
                }
                let [_, server, load, ..] = shares;
                samples.add(who, MACHINE, machine);
                samples.add(who, LEFT, machine * (100.0 - server - load) / 100.0);
                samples.add_measured(who, &measured);
            }
        }
    }
    let mut rows = against_others(&samples, Workload::Compute);
    rows.extend(against_machine(&samples));
    rows.extend(against_others(&samples, Workload::Clock));
    Ok(rows)
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

fn against_others(samples: &Samples<Who>, workload: Workload) -> Vec<Row> {
    let ours = (Contender::Ours, workload);
    let mut rows = Vec::new();
    for theirs in &CONTENDERS[1..] {
        let named = |what: &str| format!("{}, against {}: {what}", workload.name(), theirs.name());
        let row = |what: &str, unit, metric, goal| {
            let theirs = samples.figure((*theirs, workload), metric);
            Row::new(
                named(what),
                unit,
                samples.figure(ours, metric),
                theirs,
                goal,
            )
        };
        // A task per request uses every core as well: against that the ratio is to be near one, and says nothing of cores.
        let goal = match theirs {
            Contender::Bare => Goal::RatioAtLeast(1.9),
            _ => Goal::None,
        };
        rows.extend([
            row("throughput, more is better", "requests/s", RATE, goal),
            row("p99, less is better", "us", P99, Goal::None),
            row("CPU per request, less is better", "us", CPU, Goal::None),
            Row::new(
                named("without a proper answer, all rounds"),
                "requests",
                samples.sum(ours, ERRORS),
                samples.sum((*theirs, workload), ERRORS),
                Goal::Zero,
            ),
        ]);
        rows.extend(SHARES.map(|who| {
            let what = format!("share of the cores, {who}");
            row(&what, "%", who, Goal::None)
        }));
    }
    rows
}

/// What the cores could do, which only work can be measured by.
fn against_machine(samples: &Samples<Who>) -> [Row; 3] {
    let ours = |metric| samples.figure((Contender::Ours, Workload::Compute), metric);
    let bare = samples.figure((Contender::Bare, Workload::Compute), RATE);
    let row = |what: &str, ours: Option<Figure>, theirs: Option<Figure>| {
        Row::new(what, "requests/s", ours, theirs, Goal::None)
    };
    [
        row(
            "compute, against threads that only compute: throughput",
            ours(RATE),
            ours(MACHINE),
        ),
        row(
            "compute, against what the nats-server and the load leave of those: throughput",
            ours(RATE),
            ours(LEFT),
        ),
        row(
            "compute, the most there is, threads that only compute, against bare: throughput",
            ours(MACHINE),
            bare,
        ),
    ]
}
