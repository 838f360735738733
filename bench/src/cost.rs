//! What one request costs, in a process of its own for each way of serving it: what one process has set up, a subscriber say,
//! must not be there for the next. Client and service are in one thread, with no server between them, so that the difference
//! between two ways is what is measured and not the network; the cost is that of both sides.

use crate::Result;
use crate::args::Args;
use crate::work::{self, Answer, Request};
use nats_service::{Context, nats_service};
use std::time::{Duration, Instant};
use tower::layer::util::Identity;
use tower::util::MapRequestLayer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

#[nats_service]
trait Costs {
    async fn plain(&self, request: Request) -> Answer;
    async fn context(&self, #[context] ctx: &Context, request: Request) -> Answer;
}

/// The plain method with nothing beside it.
#[nats_service]
trait Alone {
    async fn plain(&self, request: Request) -> Answer;
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

impl Alone for Handler {
    async fn plain(&self, request: Request) -> Answer {
        work::echo(request)
    }
}

/// How a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Plain,
    Again,
    Beside,
    Context,
    Deadline,
    Layer,
    Identity,
    ClientLayer,
    Unwanted,
    Recorded,
}

/// Each with what it is called in a table. The first is what the others are divided by, and the second says how far two
/// measurements of one thing lie apart.
pub(crate) const WAYS: [(Way, &str); 10] = [
    (Way::Plain, "plain"),
    (Way::Again, "plain, again: what a difference means"),
    (Way::Beside, "plain, beside a method with a context"),
    (Way::Context, "context"),
    (Way::Deadline, "deadline"),
    (Way::Layer, "one tower layer"),
    (Way::Identity, "one tower layer that does nothing"),
    (Way::ClientLayer, "one tower layer on the client"),
    (Way::Unwanted, "tracing, a subscriber that wants no spans"),
    (
        Way::Recorded,
        "tracing, every span formatted and written to nowhere",
    ),
];

impl Way {
    /// As the command line has it.
    pub(crate) fn argument(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Between two looks at the clock.
const BATCH: u64 = 500;

/// `cost <way> (--seconds S | --requests N)`: prints nanoseconds a request.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn child(args: &Args) -> Result<()> {
    let way = args.word(1)?;
    let way = WAYS.iter().find(|(it, _)| it.argument() == way);
    let (way, _) = *way.ok_or_else(|| format!("no way {:?}", args.word(1)))?;
    let end = match args.optional("requests")? {
        Some(requests) => End::Requests(requests),
        None => End::After(Duration::try_from_secs_f64(args.required("seconds")?)?),
    };
    println!("{}", cost(way, end).await?);
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum End {
    After(Duration),
    Requests(u64),
}

/// Nanoseconds a request.
async fn cost(way: Way, end: End) -> Result<f64> {
    trace(way);
    let request = Request {
        id: "user-000001".into(),
        name: "Ada Lovelace".into(),
        age: 36,
        active: true,
    };
    if let Way::Plain | Way::Again = way {
        let client = AloneClient::local_from(AloneServer::new(Handler));
        return measure(end, async || Ok(client.plain(&request).await.map(drop)?)).await;
    }
    let pass = MapRequestLayer::new(|request: nats_service::layer::Request| request);
    let server = CostsServer::new(Handler);
    let client = match way {
        Way::Layer => CostsClient::local_from(server.layer(pass)),
        Way::Identity => CostsClient::local_from(server.layer(Identity::new())),
        Way::ClientLayer => CostsClient::local_from(server).layer(pass),
        _ => CostsClient::local_from(server),
    };
    let one = async || {
        match way {
            Way::Context => client.context(&request).await?,
            // Shorter than the contract's, which is what makes it a header.
            Way::Deadline => {
                client
                    .plain(&request)
                    .timeout(Duration::from_secs(1))
                    .await?
            }
            _ => client.plain(&request).await?,
        };
        Ok(())
    };
    measure(end, one).await
}

async fn measure(end: End, one: impl AsyncFn() -> Result<()>) -> Result<f64> {
    for _ in 0..BATCH {
        one().await?;
    }
    let (begin, mut requests) = (Instant::now(), 0);
    while match end {
        End::After(time) => begin.elapsed() < time,
        End::Requests(all) => requests < all,
    } {
        for _ in 0..BATCH {
            one().await?;
        }
        requests += BATCH;
    }
    Ok(begin.elapsed().as_nanos() as f64 / requests as f64)
}

/// Sets up the subscriber of this way, as a user's `main` does.
fn trace(way: Way) {
    let level = match way {
        Way::Unwanted => LevelFilter::WARN,
        Way::Recorded => LevelFilter::INFO,
        _ => return,
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(level);
    let subscriber = subscriber.with_span_events(FmtSpan::CLOSE);
    subscriber.with_writer(std::io::sink).init();
}
