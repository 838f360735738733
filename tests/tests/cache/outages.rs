//! A bucket that does not answer, is gone, or never was: no call fails for it.

use super::{Act, Bank, Hand, Quote, RateError, Served, called, counted, eur, served};
use nats_service::{Server, nats_service};
use nats_service_tests::{Nats, soon, until};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_bucket_that_does_not_answer_costs_its_time_once_in_a_while_and_fails_no_call() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    // Requests to read it reach somebody, who does not answer.
    let mut config = nats
        .js
        .get_stream("KV_rates")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    config.allow_direct = false;
    nats.js.update_stream(config).await.unwrap();
    let silent = nats
        .client
        .subscribe("$JS.API.DIRECT.GET.KV_rates.>")
        .await
        .unwrap();
    nats_service_tests::processed(&nats.client).await;

    let begun = Instant::now();
    for call in 1..=5 {
        assert_eq!(client.rate(eur()).await.unwrap().call, call);
    }
    // One look of 250 ms in a second, and not five.
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(counted(&nats, "rate", "bypassed").await, 5);
    // It is looked at again by itself.
    drop(silent);
    until("the cache is back", async || {
        let calls = bank.calls();
        client.rate(eur()).await.unwrap();
        bank.calls() == calls
    })
    .await;
}

#[tokio::test]
async fn a_bucket_that_is_gone_fails_no_call_and_its_callers_still_make_one_call() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    nats.js.delete_key_value("rates").await.unwrap();
    bank.then([Act::Hold]);
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let call = client.rate(eur());
        calls.spawn(async move { call.await.unwrap().call });
    }
    called(bank, 1).await;
    until("the others wait", async || {
        counted(&nats, "rate", "bypassed").await == 10
    })
    .await;
    bank.gate.add_permits(1);
    while let Some(call) = soon("an answer", calls.join_next()).await {
        assert_eq!(call.unwrap(), 1);
    }
}

#[tokio::test]
async fn without_jetstream_every_call_is_a_miss() {
    let nats = Nats::start().await;
    let bank = Bank::new([]);
    let server = Server::new(nats.client.clone());
    #[nats_service(version = "1.0.0")]
    trait Bare {
        #[kv_cache(
            bucket = "rates",
            key = "rate.<currency>",
            ttl = "1h",
            write = "before_reply"
        )]
        async fn rate(&self, currency: String) -> Result<Quote, RateError>;
    }
    impl Bare for Hand {
        async fn rate(&self, currency: String) -> Result<Quote, RateError> {
            self.0.sure(currency).await
        }
    }
    let _running = server
        .serve(BareServer::new(Hand(bank)))
        .start()
        .await
        .unwrap();
    let client = BareClient::new(nats.client.clone());
    for call in 1..=2 {
        assert_eq!(client.rate(eur()).await.unwrap().call, call);
    }
}
