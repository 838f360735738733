//! What each thing around a handler costs a request, against a plain endpoint of the same program: a context, a deadline, one
//! layer of tower. Client and service are in one thread, with no server between them, so that the difference is what is
//! measured and not the network; the cost is that of both sides.

use super::{Plan, Row, Samples, progress};
use crate::Result;
use crate::report::Goal;
use crate::work::{self, Answer, Request};
use nats_service::{Context, nats_service};
use std::time::{Duration, Instant};
use tower::layer::util::Identity;
use tower::util::MapRequestLayer;

#[nats_service]
trait Costs {
    async fn plain(&self, request: Request) -> Answer;
    async fn context(&self, #[context] ctx: &Context, request: Request) -> Answer;
}

struct Handler;

impl Costs for Handler {
    async fn plain(&self, request: Request) -> Answer {
        work::echo(request)
    }
    async fn context(&self, ctx: &Context, request: Request) -> Answer {
        std::hint::black_box(ctx.remaining());
        work::echo(request)
    }
}

/// Each with what it is called in the table. The first is what the others are divided by, and the second says how far two
/// measurements of one thing lie apart.
const WAYS: [(Way, &str); 7] = [
    (Way::Plain, "plain"),
    (Way::Again, "plain, again: what a difference means"),
    (Way::Context, "context"),
    (Way::Deadline, "deadline"),
    (Way::Layer, "one tower layer"),
    (Way::Identity, "one tower layer that does nothing"),
    (Way::ClientLayer, "one tower layer on the client"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Plain,
    Again,
    Context,
    Deadline,
    Layer,
    Identity,
    ClientLayer,
}

const COST: &str = "cost";
/// Between two looks at the clock.
const BATCH: u32 = 500;

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    // A thread of its own, with a runtime of one thread: no core is waited for.
    tokio::task::spawn_blocking(move || measure(plan)).await?
}

fn measure(plan: Plan) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        progress(format_args!("overhead: round {round}"));
        for (way, _) in WAYS {
            let time = Duration::from_secs_f64(plan.seconds / WAYS.len() as f64);
            samples.add(way, COST, runtime.block_on(cost(way, time))?);
        }
    }
    let plain = samples.figure(Way::Plain, COST);
    let rows = WAYS[1..].iter().map(|(way, name)| {
        let figure = samples.figure(*way, COST);
        Row::new(
            format!("{name}, against a plain endpoint"),
            "ns/request",
            figure,
            plain,
            Goal::None,
        )
    });
    Ok(rows.collect())
}

/// Nanoseconds a request.
async fn cost(way: Way, time: Duration) -> Result<f64> {
    let pass = MapRequestLayer::new(|request: nats_service::layer::Request| request);
    let server = CostsServer::new(Handler);
    let client = match way {
        Way::Layer => CostsClient::local_from(server.layer(pass)),
        Way::Identity => CostsClient::local_from(server.layer(Identity::new())),
        Way::ClientLayer => CostsClient::local_from(server).layer(pass),
        _ => CostsClient::local_from(server),
    };
    let request = Request {
        id: "user-000001".into(),
        name: "Ada Lovelace".into(),
        age: 36,
        active: true,
    };
    let one = async || match way {
        Way::Context => client.context(&request).await,
        // Shorter than the contract's, which is what makes it a header.
        Way::Deadline => client.plain(&request).timeout(Duration::from_secs(1)).await,
        _ => client.plain(&request).await,
    };
    for _ in 0..BATCH {
        one().await?;
    }
    let (begin, mut requests) = (Instant::now(), 0);
    while begin.elapsed() < time {
        for _ in 0..BATCH {
            one().await?;
        }
        requests += BATCH;
    }
    Ok(begin.elapsed().as_nanos() as f64 / f64::from(requests))
}
