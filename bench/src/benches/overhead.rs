//! What each thing around a handler costs a request, against a plain endpoint, in time; see [`crate::cost`]. In instructions,
//! which nothing else on the machine disturbs, `instructions` says it.

use super::{Plan, Row, Samples, progress};
use crate::Result;
use crate::cost::{WAYS, Way};
use crate::process::report_of;
use crate::report::Goal;

const COST: &str = "cost";

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let seconds = (plan.seconds / WAYS.len() as f64).to_string();
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        progress(format_args!("overhead: round {round}"));
        for (way, _) in WAYS {
            let arguments = ["cost", &way.argument(), "--seconds", &seconds];
            samples.add(way, COST, report_of(&arguments).await?);
        }
    }
    let plain = samples.figure(Way::Plain, COST);
    let rows = WAYS[1..].iter().map(|(way, name)| {
        let what = format!("{name}, against a plain endpoint");
        let figure = samples.figure(*way, COST);
        Row::new(what, "ns/request", figure, plain, Goal::None)
    });
    Ok(rows.collect())
}
