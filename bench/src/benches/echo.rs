//! A cheap handler under a closed loop: what the framework itself costs.

use super::{CPU, ERRORS, P50, P99, Plan, RATE, Row, Samples, progress};
use crate::Result;
use crate::contender::{Contender, Workload};
use crate::process::{Sending, Service};
use crate::report::Goal;
use nats_service_testkit::TestServer;

const CONTENDERS: [Contender; 3] = [Contender::Ours, Contender::Bare, Contender::ServiceModule];
const IN_FLIGHT: [usize; 3] = [1, 64, 256];

/// What a 99th percentile varies by between two runs of one and the same program.
const P99_TOLERANCE: f64 = 1.05;

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        for (contender, player) in plan.cast(&CONTENDERS) {
            progress(format_args!("echo: round {round}, {}", contender.name()));
            let server = TestServer::start().await?;
            let service = Service::start(server.url(), player, Workload::Echo, 0).await?;
            for in_flight in IN_FLIGHT {
                let load = plan.load(Sending::InFlight(in_flight));
                let measured = service.measure(&load).await?;
                samples.add_measured((contender, in_flight), &measured);
            }
        }
    }
    let mut rows = Vec::new();
    for theirs in [Contender::Bare, Contender::ServiceModule] {
        for in_flight in IN_FLIGHT {
            rows.extend(compare(&samples, theirs, in_flight));
        }
    }
    Ok(rows)
}

fn compare(samples: &Samples<(Contender, usize)>, theirs: Contender, in_flight: usize) -> [Row; 5] {
    let (ours, name) = ((Contender::Ours, in_flight), theirs.name());
    let theirs = (theirs, in_flight);
    // One request at a time measures the network stack and the scheduler's mood, so it binds nobody to a throughput.
    let rate_goal = match in_flight {
        1 => Goal::None,
        _ => Goal::RatioAtLeast(0.95),
    };
    let row = |what: &str, unit, metric, goal| {
        let what = format!("{in_flight} in flight, against {name}: {what}");
        let figures = (samples.figure(ours, metric), samples.figure(theirs, metric));
        Row::new(what, unit, figures.0, figures.1, goal)
    };
    [
        row("throughput, more is better", "requests/s", RATE, rate_goal),
        row("p50, less is better", "us", P50, Goal::None),
        row(
            "p99, less is better",
            "us",
            P99,
            Goal::RatioAtMost(P99_TOLERANCE),
        ),
        row(
            "CPU per request, less is better",
            "us",
            CPU,
            Goal::RatioAtMost(1.3),
        ),
        Row::new(
            format!("{in_flight} in flight, against {name}: without a proper answer, all rounds"),
            "requests",
            samples.sum(ours, ERRORS),
            samples.sum(theirs, ERRORS),
            Goal::Zero,
        ),
    ]
}
