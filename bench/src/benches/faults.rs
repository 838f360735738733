//! The long form of `tests/cluster_faults.rs`: every fault of a cluster, once a round, under load. It measures nothing; its rows
//! say how much was tried, and that no promise was broken.

use super::{Plan, Row, progress};
use crate::Result;
use crate::report::{Figure, Goal};
use nats_service_tests::ledger::{self, Fault};

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let (mut faults, mut answers, mut granted, mut broken) = (0, 0, 0, 0);
    for round in 1..=plan.rounds {
        progress(format_args!("faults: round {round}"));
        // A cluster of its own each time: the bucket's history holds one round.
        let findings = ledger::run(1, &Fault::ALL).await;
        for problem in &findings.problems {
            progress(format_args!("faults: {problem}"));
        }
        faults += findings.faults;
        answers += findings.answers;
        granted += findings.granted;
        broken += findings.problems.len();
    }
    let row = |what: &str, unit, count: usize, goal| {
        let count = Some(Figure::exactly(count as f64));
        Row::new(what.to_owned(), unit, count, count, goal)
    };
    Ok(vec![
        row("faults, each undone", "faults", faults, Goal::None),
        row("calls answered meanwhile", "calls", answers, Goal::None),
        row("compare-and-sets granted", "writes", granted, Goal::None),
        row("promises broken", "problems", broken, Goal::Zero),
    ])
}
