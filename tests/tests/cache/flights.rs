//! Callers of one key in one process: one of them calls the handler, and nobody is left waiting.

use super::{Act, Hand, RateError, Served, called, counted, eur, from, served};
use nats_service::{Code, Server, nats_service};
use nats_service_tests::{Nats, soon};
use std::time::Duration;
use tokio::task::JoinSet;

#[tokio::test]
async fn concurrent_callers_of_one_key_make_one_call() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    bank.then([Act::Hold]);
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let call = client.rate(eur());
        calls.spawn(async move { call.reply().await.unwrap() });
    }
    called(bank, 1).await;
    // All hundred have been taken, and ninety-nine of them wait.
    let other = client.rate("usd".to_owned()).await.unwrap();
    assert_eq!(other.call, 2, "another key waits for nobody");
    bank.gate.add_permits(1);
    let mut shared = 0;
    while let Some(reply) = soon("an answer", calls.join_next()).await {
        let reply = reply.unwrap();
        assert_eq!(reply.value.call, 1);
        shared += usize::from(from(&reply.headers).is_some());
    }
    assert_eq!((bank.calls(), shared), (2, 99));
    let waited = counted(&nats, "rate", "waited").await;
    assert_eq!(waited + counted(&nats, "rate", "hits").await, 99);
    assert!(waited > 0);
}

#[tokio::test]
async fn a_leader_that_panics_or_runs_out_of_time_strands_nobody() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    bank.then([Act::Panic]);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let call = client.rate(eur());
        calls.spawn(async move { call.await.map_err(|error| error.code()) });
    }
    let mut failed = 0;
    while let Some(answer) = soon("an answer", calls.join_next()).await {
        match answer.unwrap() {
            Ok(quote) => assert_eq!(quote.call, 2),
            Err(code) => {
                assert_eq!(code, Code::Internal);
                failed += 1;
            }
        }
    }
    assert_eq!((failed, bank.calls()), (1, 2));

    // Who waits for the leader has more time than that, and takes its turn when it is over.
    bank.then([Act::Never]);
    let usd = || client.surely("usd".to_owned());
    let first = usd().timeout(Duration::from_secs(1)).into_future();
    let first = tokio::spawn(first);
    called(bank, 3).await;
    let second = usd().timeout(Duration::from_secs(5)).await;
    let first = first.await.unwrap().unwrap_err();
    assert_eq!(
        (first.code(), second.unwrap().call),
        (Code::DeadlineExceeded, 4)
    );
}

#[nats_service(version = "1.0.0", timeout = "20s")]
trait Large {
    #[object_store(bucket = "whole", key = "<currency>.<caller>", name = "whole")]
    #[kv_cache(bucket = "large", key = "<currency>", ttl = "1h")]
    async fn large(&self, currency: String, caller: u32) -> Result<String, RateError>;
}

impl Large for Hand {
    async fn large(&self, currency: String, _caller: u32) -> Result<String, RateError> {
        self.0.sure(currency).await?;
        Ok("x".repeat(3_000_000))
    }
}

#[tokio::test]
async fn an_answer_that_fits_no_message_is_shared_with_nobody_and_all_have_it() {
    let nats = Nats::start().await;
    let Served { bank, .. } = &served(&nats).await;
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let server = server.serve(LargeServer::new(Hand(bank.clone())));
    let _running = server.start().await.unwrap();
    let client = LargeClient::new(nats.client.clone());
    bank.then([Act::Hold]);
    let mut calls = JoinSet::new();
    for caller in 0..3 {
        let call = client.large(eur(), caller);
        calls.spawn(async move { call.await.unwrap().len() });
    }
    called(bank, 1).await;
    bank.gate.add_permits(1);
    while let Some(length) = soon("an answer", calls.join_next()).await {
        assert_eq!(length.unwrap(), 3_000_000);
    }
    assert_eq!(bank.calls(), 3);
}
