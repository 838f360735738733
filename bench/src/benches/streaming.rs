//! A stream of small items, read to its end: ours against the loop that publishes a message an item, which is what a user
//! writes by hand. That loop has no flow control, so it is given no more items than a subscription can hold.
//!
//! Service and reader have connections of their own in one process, on a runtime of their own, for both contenders alike.

use super::{Plan, RATE, Row, Samples, progress};
use crate::Result;
use crate::report::Goal;
use async_nats::Client;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nats_service::{Server, Stream, message, nats_service};
use nats_service_testkit::TestServer;
use std::time::Instant;

/// Fewer than the 65,536 messages that a subscription of async-nats holds before it drops the next.
const ITEMS: u64 = 50_000;
const SUBJECT: &str = "bench.tail";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    Ours,
    ByHand,
}

#[nats_service]
trait Log {
    async fn tail(&self, lines: u64) -> impl Stream<Item = Line> + Send;
}

#[message]
struct Line {
    number: u64,
    text: String,
}

fn line(number: u64) -> Line {
    let text = "a line of a log as it is usually written, with some words".to_owned();
    Line { number, text }
}

struct Lines;

impl Log for Lines {
    async fn tail(&self, lines: u64) -> impl Stream<Item = Line> + Send {
        stream::iter(0..lines).map(line)
    }
}

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        for contender in [Contender::Ours, Contender::ByHand] {
            progress(format_args!("streaming: round {round}, {contender:?}"));
            let server = TestServer::start().await?;
            let (url, seconds) = (server.url().to_owned(), plan.seconds);
            let measuring = std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new()?;
                runtime.block_on(measure(contender, &url, seconds))
            });
            let rate = tokio::task::spawn_blocking(move || measuring.join()).await?;
            samples.add(contender, RATE, rate.map_err(|_| "a panic")??);
        }
    }
    Ok(vec![Row::new(
        "against a message an item by hand: throughput, more is better",
        "items/s",
        samples.figure(Contender::Ours, RATE),
        samples.figure(Contender::ByHand, RATE),
        Goal::RatioAtLeast(1.0),
    )])
}

/// Items a second.
async fn measure(contender: Contender, url: &str, seconds: f64) -> Result<f64> {
    let (service, reader) = (
        async_nats::connect(url).await?,
        async_nats::connect(url).await?,
    );
    let running = match contender {
        Contender::Ours => {
            let server = Server::new(service).serve(LogServer::new(Lines));
            Some(server.start().await?)
        }
        Contender::ByHand => {
            let requests = service.subscribe(SUBJECT).await?;
            service.flush().await?;
            tokio::spawn(serve_by_hand(service, requests));
            None
        }
    };
    let log = LogClient::new(reader.clone());
    let (mut items, mut began) = (0, Instant::now());
    let mut warm = false;
    while began.elapsed().as_secs_f64() < seconds || !warm {
        let read = match contender {
            Contender::Ours => {
                let lines = log.tail(ITEMS).await?;
                lines
                    .try_fold(0, |read, _| std::future::ready(Ok(read + 1)))
                    .await?
            }
            Contender::ByHand => read_by_hand(&reader).await?,
        };
        if read != ITEMS {
            return Err(format!("{read} items of {ITEMS} came").into());
        }
        items += read;
        if !warm {
            (warm, items, began) = (true, 0, Instant::now());
        }
    }
    let rate = items as f64 / began.elapsed().as_secs_f64();
    drop(running);
    Ok(rate)
}

async fn serve_by_hand(nats: Client, mut requests: async_nats::Subscriber) -> Result<()> {
    while let Some(request) = requests.next().await {
        let lines: u64 = serde_json::from_slice(&request.payload)?;
        let reply = request.reply.ok_or("no reply subject")?;
        for number in 0..lines {
            let body = serde_json::to_vec(&line(number))?;
            nats.publish(reply.clone(), body.into()).await?;
        }
        nats.publish(reply, "".into()).await?;
    }
    Ok(())
}

async fn read_by_hand(nats: &Client) -> Result<u64> {
    let inbox = nats.new_inbox();
    let mut lines = nats.subscribe(inbox.clone()).await?;
    let body = serde_json::to_vec(&ITEMS)?;
    nats.publish_with_reply(SUBJECT, inbox, body.into()).await?;
    let mut read = 0;
    while let Some(message) = lines.next().await {
        if message.payload.is_empty() {
            break;
        }
        let line: Line = serde_json::from_slice(&message.payload)?;
        read += u64::from(line.number == read);
    }
    Ok(read)
}
