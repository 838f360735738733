//! A slow service behind a read-through cache: one call for many callers, an outage that nobody notices, an eviction.
//!
//! `cargo run --example cache` plays it on a private nats-server.

use futures_util::future::try_join_all;
use nats_service::async_nats::{self, jetstream};
use nats_service::{Running, Server, ServiceError, message, nats_service};
use nats_service_testkit::TestServer;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Exchange rates.
#[nats_service(version = "1.0.0")]
trait Rates {
    /// Fresh for a second; for an hour longer, while the bank is away. One call of a key among all instances.
    #[kv_cache(
        bucket = "rates",
        key = "rate.<currency>",
        ttl = "1s",
        stale_on_error = "1h",
        cache_errors(NotFound = "1s"),
        single_flight = "cluster",
        write = "before_reply"
    )]
    async fn rate(&self, currency: String) -> Result<Rate, RateError>;

    /// The rate is another one now.
    #[kv_evict(bucket = "rates", key = "rate.<currency>", write = "before_reply")]
    async fn changed(&self, currency: String) -> Result<(), RateError>;
}

/// What one euro is worth.
#[message]
#[derive(Debug, Clone, PartialEq)]
struct Rate {
    currency: String,
    worth: f64,
}

#[derive(Debug, ServiceError)]
enum RateError {
    #[service_error(code = NotFound, message = "there is no currency `{currency}`")]
    NoSuch { currency: String },
    #[service_error(code = Unavailable, message = "the bank does not answer")]
    Away,
}

/// Takes its time, and fails when it is told to.
#[derive(Default)]
struct Bank {
    calls: AtomicUsize,
    away: AtomicBool,
}

#[derive(Clone)]
struct Desk(Arc<Bank>);

impl Rates for Desk {
    async fn rate(&self, currency: String) -> Result<Rate, RateError> {
        let call = self.0.calls.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
        if self.0.away.load(SeqCst) {
            return Err(RateError::Away);
        }
        match &*currency {
            "usd" | "chf" => Ok(Rate {
                currency,
                worth: 1.08 + call as f64 / 100.0,
            }),
            _ => Err(RateError::NoSuch { currency }),
        }
    }

    async fn changed(&self, _currency: String) -> Result<(), RateError> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(url: &str, bank: &Arc<Bank>) -> Result<Running> {
    let nats = async_nats::connect(url).await?;
    let js = jetstream::new(nats.clone());
    let server = Server::new(nats).with_jetstream(js);
    let desk = Desk(Arc::clone(bank));
    Ok(server.serve(RatesServer::new(desk)).start().await?)
}

fn expect(what: &str, holds: bool) -> Result {
    if holds {
        return Ok(());
    }
    Err(format!("it does not hold that {what}").into())
}

async fn run() -> Result {
    // Kept until the end: the server dies with this value.
    let private = TestServer::start().await?;
    let bank = Arc::<Bank>::default();
    let instances = [
        serve(private.url(), &bank).await?,
        serve(private.url(), &bank).await?,
    ];
    let nats = async_nats::connect(private.url()).await?;
    let rates = RatesClient::new(nats.clone()).with_jetstream(jetstream::new(nats));
    let usd = || rates.rate("usd".to_string());

    let begun = Instant::now();
    let all = try_join_all((0..200).map(|_| usd().into_future())).await?;
    println!(
        "200 callers, two instances: {:?}, {} call of the bank",
        begun.elapsed(),
        bank.calls.load(SeqCst)
    );
    expect(
        "one call served all",
        bank.calls.load(SeqCst) == 1 && all.iter().all(|rate| *rate == all[0]),
    )?;

    let begun = Instant::now();
    let hit = usd().reply().await?;
    println!(
        "once more: {:?} in {:?}",
        hit.headers.get("Nats-Service-Cache"),
        begun.elapsed()
    );
    expect(
        "it came from the bucket",
        hit.value == all[0] && hit.revision.is_some(),
    )?;

    for _ in 0..2 {
        let error = rates.rate("dm".to_string()).await.expect_err("it is gone");
        println!("dm: {error}");
    }
    expect(
        "the second time nobody asked the bank",
        bank.calls.load(SeqCst) == 2,
    )?;

    bank.away.store(true, SeqCst);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let stale = usd().reply().await?;
    println!(
        "the bank is away, and the rate no longer fresh: {:?}",
        stale.headers.get("Nats-Service-Cache")
    );
    expect("the old rate is given", stale.value == all[0])?;
    bank.away.store(false, SeqCst);

    rates.changed("usd".to_string()).await?;
    let now = usd().await?;
    println!("evicted: {} became {}", stale.value.worth, now.worth);
    expect("it is another one", now != all[0])?;

    for running in instances {
        running.shutdown(Duration::from_secs(10)).await?;
    }
    Ok(())
}
