//! What a request costs in instructions: in the service's process, against a loop by hand and the service module of
//! async-nats; and what each thing around a handler adds, as in `overhead`. Without `valgrind` on the PATH there are no rows.
//!
//! Each figure is the difference between a long run and a short one, so that starting and stopping are not in it, and the
//! least of the rounds: a disturbance only ever adds, a task for a handler whose thread lost its core, say. Where the C library
//! copies by one repeated instruction, each byte of a large copy counts as one.

use super::{Plan, Row, Samples, progress};
use crate::Result;
use crate::contender::{Contender, Workload};
use crate::cost::{WAYS, Way};
use crate::process::{End, Load, Sending, Service, instructions_of};
use crate::report::{Figure, Goal};
use crate::valgrind;
use nats_service_testkit::TestServer;
use std::time::Duration;

const CONTENDERS: [Contender; 3] = [Contender::Ours, Contender::Bare, Contender::ServiceModule];
const IN_FLIGHT: usize = 64;
/// How long the two runs are.
const REQUESTS: [u64; 2] = [2_000, 12_000];
/// Two counts of one thing differ by less: hashes have random seeds, and batches their own lengths.
const NOISE: f64 = 1.02;
const COST: &str = "cost";

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    if !valgrind::is_there().await {
        progress(format_args!(
            "instructions: there is no valgrind to count them"
        ));
        return Ok(Vec::new());
    }
    let (mut echo, mut ways) = (Samples::new(), Samples::new());
    for round in 1..=plan.rounds {
        progress(format_args!("instructions: round {round}"));
        for (contender, player) in plan.cast(&CONTENDERS) {
            let [short, long] = REQUESTS.map(|requests| served(player, requests));
            echo.add(contender, COST, each(short.await?, long.await?));
        }
        for (way, _) in WAYS {
            let [short, long] = REQUESTS.map(|requests| called(way, requests));
            ways.add(way, COST, each(short.await?, long.await?));
        }
    }
    let mut rows = Vec::new();
    for theirs in [Contender::Bare, Contender::ServiceModule] {
        rows.push(Row::new(
            format!(
                "the service, {IN_FLIGHT} in flight, against {}",
                theirs.name()
            ),
            "instructions/request",
            least(&echo, Contender::Ours),
            least(&echo, theirs),
            Goal::RatioAtMost(1.3),
        ));
    }
    rows.extend(WAYS[1..].iter().map(|(way, name)| {
        Row::new(
            format!("{name}, against a plain endpoint"),
            "instructions/request",
            least(&ways, *way),
            least(&ways, Way::Plain),
            match way {
                // What is not used costs nothing.
                Way::Again | Way::Beside | Way::Unwanted => Goal::RatioAtMost(NOISE),
                _ => Goal::None,
            },
        )
    }));
    Ok(rows)
}

fn each(short: u64, long: u64) -> f64 {
    let requests = REQUESTS[1] - REQUESTS[0];
    long.saturating_sub(short) as f64 / requests as f64
}

fn least<K: Ord + Copy>(samples: &Samples<K>, who: K) -> Option<Figure> {
    let figure = samples.figure(who, COST)?;
    let median = figure.least;
    Some(Figure { median, ..figure })
}

/// What the service's process executes, from its start to its end, to answer so many requests.
async fn served(contender: Contender, requests: u64) -> Result<u64> {
    let server = TestServer::start().await?;
    let service = Service::start_counted(server.url(), contender, Workload::Echo).await?;
    let load = Load {
        sending: Sending::InFlight(IN_FLIGHT),
        warm_up: Duration::ZERO,
        end: End::Requests(requests),
    };
    let measured = service.measure(&load).await?;
    if measured.outcome.errors > 0 {
        return Err(format!("{} left requests without an answer", contender.name()).into());
    }
    service.instructions().await
}

/// What client and service execute in one thread.
async fn called(way: Way, requests: u64) -> Result<u64> {
    let requests = requests.to_string();
    instructions_of(&["cost", &way.argument(), "--requests", &requests]).await
}
