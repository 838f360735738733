//! A handler that computes for a millisecond, 16 in flight: whether a service uses the cores that it has. The work is a counted
//! number of steps, calibrated once for all contenders, so that throughput is work done and not time passed.

use super::{CPU, ERRORS, P99, Plan, RATE, Row, Samples, progress};
use crate::contender::{Contender, Workload};
use crate::process::{Sending, Service};
use crate::report::Goal;
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

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let steps = work::calibrate(HANDLER);
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        for (contender, player) in plan.cast(&CONTENDERS) {
            progress(format_args!("compute: round {round}, {}", contender.name()));
            let server = TestServer::start().await?;
            let service = Service::start(server.url(), player, Workload::Compute, steps).await?;
            let measured = service
                .measure(&plan.load(Sending::InFlight(IN_FLIGHT)))
                .await?;
            samples.add_measured(contender, &measured);
        }
    }
    let row = |what: &str, unit, metric, theirs: Contender, goal| {
        let what = format!("against {}: {what}", theirs.name());
        let ours = samples.figure(Contender::Ours, metric);
        Row::new(what, unit, ours, samples.figure(theirs, metric), goal)
    };
    let mut rows = Vec::new();
    for theirs in [
        Contender::Bare,
        Contender::BareSpawn,
        Contender::ServiceModule,
    ] {
        // A task per request uses every core as well: against that the ratio is to be near one, and says nothing of cores.
        let goal = match theirs {
            Contender::Bare => Goal::RatioAtLeast(1.9),
            _ => Goal::None,
        };
        rows.extend([
            row(
                "throughput, more is better",
                "requests/s",
                RATE,
                theirs,
                goal,
            ),
            row("p99, less is better", "us", P99, theirs, Goal::None),
            row(
                "CPU per request, less is better",
                "us",
                CPU,
                theirs,
                Goal::None,
            ),
        ]);
        let errors = |who| samples.sum(who, ERRORS);
        rows.push(Row::new(
            format!(
                "against {}: without a proper answer, all rounds",
                theirs.name()
            ),
            "requests",
            errors(Contender::Ours),
            errors(theirs),
            Goal::Zero,
        ));
    }
    Ok(rows)
}
