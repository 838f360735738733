//! Many values into one bucket: the writer against `kv.put`, one after the other and 1,024 at once. The rate is of what is
//! stored, and the CPU that of the writing process; each way runs in a process of its own, on a server of its own.

use super::{Plan, Row, Samples, progress};
use crate::Result;
use crate::process::report_of;
use crate::report::Goal;
use crate::writes::{Outcome, Way};
use nats_service_testkit::TestServer;

const RATE: &str = "rate";
const CPU: &str = "cpu";
const LOST: &str = "lost";

/// Writes in a measured second at a rate that any of them reaches, so that a run takes about the seconds it was given.
const PER_SECOND: f64 = 100_000.0;
const PER_SECOND_AWAITED: f64 = 7_000.0;

const STORAGES: [&str; 2] = ["file", "memory"];

type Who = (Way, &'static str);

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let mut samples: Samples<Who> = Samples::new();
    for round in 1..=plan.rounds {
        for storage in STORAGES {
            for way in Way::ALL {
                progress(format_args!(
                    "writer: round {round}, {} {storage}",
                    way.name()
                ));
                let outcome = one(plan, way, storage).await?;
                let who = (way, storage);
                samples.add(who, RATE, outcome.writes as f64 / outcome.seconds);
                samples.add(who, CPU, outcome.cpu_seconds * 1e6 / outcome.writes as f64);
                samples.add(who, LOST, (outcome.writes - outcome.stored) as f64);
            }
        }
    }
    let row = |what: String, unit, metric, theirs: Who, storage, goal| {
        let ours = samples.figure((Way::Ours, storage), metric);
        Row::new(what, unit, ours, samples.figure(theirs, metric), goal)
    };
    let mut rows = Vec::new();
    for storage in STORAGES {
        let (awaited, at_once) = ((Way::Awaited, storage), (Way::AtOnce, storage));
        // The server that the testkit brings has fast ingest.
        let goal = 1.3;
        let what = |rest: &str| format!("128-byte values, {storage} store: {rest}");
        rows.extend([
            row(
                what("kv.put awaited, more is better"),
                "writes/s",
                RATE,
                awaited,
                storage,
                Goal::RatioAtLeast(if storage == "file" { 18.0 } else { 1.0 }),
            ),
            row(
                what("1,024 kv.put at once, more is better"),
                "writes/s",
                RATE,
                at_once,
                storage,
                Goal::RatioAtLeast(goal),
            ),
            row(
                what("1,024 kv.put at once, CPU a write, less is better"),
                "us",
                CPU,
                at_once,
                storage,
                Goal::RatioAtMost(0.5),
            ),
            Row::new(
                what("accepted and not stored, all rounds"),
                "writes",
                samples.sum((Way::Ours, storage), LOST),
                samples.sum(at_once, LOST),
                Goal::Zero,
            ),
        ]);
    }
    Ok(rows)
}

async fn one(plan: Plan, way: Way, storage: &'static str) -> Result<Outcome> {
    let server = TestServer::start().await?;
    let per_second = match way {
        Way::Awaited => PER_SECOND_AWAITED,
        Way::Ours | Way::AtOnce => PER_SECOND,
    };
    let count = (plan.seconds * per_second).round().to_string();
    let arguments = ["writes", way.name(), "--nats", server.url()];
    let options = ["--storage", storage, "--count", &count];
    report_of(&[&arguments[..], &options[..]].concat()).await
}
