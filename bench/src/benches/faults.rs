//! The long form of `tests/tests/cluster_faults.rs`: every fault of a cluster, once a round, under load. It measures nothing; its
//! rows say how much was tried, and that no promise was broken.
//!
//! The test is started, and not linked: its crate switches on features that would be in the service that is measured.

use super::{Plan, Row, progress, workspace};
use crate::Result;
use crate::report::{Figure, Goal};
use serde::Deserialize;
use std::process::Stdio;
use tokio::process::Command;

/// What the test prints for each round.
#[derive(Debug, Deserialize)]
struct Findings {
    faults: usize,
    answers: usize,
    granted: usize,
    seen: usize,
    problems: Vec<String>,
}

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let (mut faults, mut answers, mut granted, mut seen, mut broken) = (0, 0, 0, 0, 0);
    for round in 1..=plan.rounds {
        progress(format_args!("faults: round {round}"));
        let findings = one().await?;
        for problem in &findings.problems {
            progress(format_args!("faults: {problem}"));
        }
        faults += findings.faults;
        answers += findings.answers;
        granted += findings.granted;
        seen += findings.seen;
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
        row(
            "changes that the watch brought",
            "changes",
            seen,
            Goal::None,
        ),
        row("promises broken", "problems", broken, Goal::Zero),
    ])
}

async fn one() -> Result<Findings> {
    let arguments = "test --locked -p nats-service-tests --test cluster_faults -- --nocapture";
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments.split(' '))
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8(output.stdout)?;
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix("findings: "));
    let found = found.ok_or_else(|| format!("the test did not get to its end:\n{text}"))?;
    Ok(serde_json::from_str(found)?)
}
