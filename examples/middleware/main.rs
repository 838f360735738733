//! Middleware: who calls is found out by a layer, and a payment that is sent twice is made once.
//!
//! `cargo run --example middleware` plays it on a private nats-server.

// What is `pub` here would be exported by a crate of its own.
#![allow(unreachable_pub)]

mod authenticate;
mod idempotency;

use async_nats::jetstream;
use authenticate::{Authenticate, User};
use idempotency::Idempotency;
use nats_service::layer::Request;
use nats_service::{Code, Context, Error, KvStore, Server, async_nats, message, nats_service};
use nats_service_testkit::TestServer;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tower::timeout::TimeoutLayer;
use tower::util::MapRequestLayer;

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Payments.
#[nats_service]
pub trait Payments {
    /// Pays. Not idempotent by itself: two payments are two payments.
    async fn pay(&self, #[context] ctx: &Context, to: String, cents: u64)
    -> Result<Receipt, Error>;
}

/// What a payer gets.
#[message]
#[derive(Debug, PartialEq)]
pub struct Receipt {
    number: u64,
    from: String,
}

/// The bank, which only counts.
#[derive(Default)]
struct Bank {
    payments: AtomicU64,
}

impl Payments for Bank {
    async fn pay(&self, ctx: &Context, to: String, cents: u64) -> Result<Receipt, Error> {
        // The layer has seen to it that there is one; a handler that is called without it should not guess.
        let User(from) = ctx
            .get()
            .ok_or_else(|| Error::unauthenticated("who pays?"))?;
        if cents > 100_000 {
            return Err(Error::failed_precondition(format!(
                "{from} has not so much"
            )));
        }
        let number = self.payments.fetch_add(1, SeqCst) + 1;
        println!("    the bank: payment {number}, {cents} cents from {from} to {to}");
        Ok(Receipt {
            number,
            from: from.clone(),
        })
    }
}

#[tokio::main]
async fn main() -> Result {
    let private = TestServer::start().await?;
    let nats = async_nats::connect(private.url()).await?;
    let js = jetstream::new(nats.clone());
    // First answers are kept for a day: a repeat that comes later is a new payment.
    let bucket = jetstream::kv::Config {
        bucket: "first_answers".into(),
        max_age: Duration::from_secs(24 * 3600),
        ..Default::default()
    };
    js.create_key_value(bucket).await?;
    let answers = KvStore::bind(js, "first_answers")?;

    let running = Server::new(nats.clone())
        // The first layer is the outermost: the clock runs for all of them, and nobody's key is looked up unauthenticated.
        .layer(TimeoutLayer::new(Duration::from_secs(2)))
        .layer(Authenticate::with([
            ("token-of-ada", "ada"),
            ("token-of-bob", "bob"),
        ]))
        .layer(Idempotency::new(answers))
        .serve(PaymentsServer::new(Bank::default()))
        .start()
        .await?;

    println!("* Without a token nothing reaches the bank");
    let anonymous = PaymentsClient::new(nats);
    match anonymous.pay("bob".to_string(), 100).await {
        Err(error) if error.code() == Code::Unauthenticated => println!("    {error}"),
        other => return Err(format!("a refusal was expected, not {other:?}").into()),
    }

    println!("* A client's layer sends one with every call");
    let ada = anonymous.layer(MapRequestLayer::new(|mut request: Request| {
        request
            .headers
            .insert("Authorization", "Bearer token-of-ada");
        request
    }));
    let first = ada
        .pay("bob".to_string(), 100)
        .header("Idempotency-Key", "order-17")
        .await?;

    println!("* The same payment again, as after a time-out: the first receipt, and no payment");
    let again = ada
        .pay("bob".to_string(), 100)
        .header("Idempotency-Key", "order-17")
        .reply()
        .await?;
    assert_eq!(again.value, first);
    println!(
        "    receipt {}, replayed: {}",
        again.value.number,
        again.headers.get("Idempotent-Replay").is_some()
    );

    println!("* The same key with another payment is a mistake, and is told");
    match ada
        .pay("bob".to_string(), 7)
        .header("Idempotency-Key", "order-17")
        .await
    {
        Err(error) if error.code() == Code::InvalidArgument => println!("    {error}"),
        other => return Err(format!("a refusal was expected, not {other:?}").into()),
    }

    println!("* A payment that failed was none, and may be tried again under its key");
    for cents in [200_000, 200] {
        let paid = ada
            .pay("bob".to_string(), cents)
            .header("Idempotency-Key", "order-18")
            .await;
        match paid {
            Ok(receipt) => println!("    receipt {}", receipt.number),
            Err(error) => println!("    {error}"),
        }
    }
    running.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
