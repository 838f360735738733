//! Callers of one key in several processes, where `single_flight = "cluster"` makes one of them call.

use super::{Act, Served, called, eur, served};
use async_nats::HeaderMap;
use nats_service::Code;
use nats_service_tests::{Nats, soon, until};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[tokio::test]
async fn instances_that_share_a_flight_make_one_call_among_them() {
    let nats = Nats::start().await;
    let (one, two) = (served(&nats).await, served(&nats).await);
    for bank in [&one.bank, &two.bank] {
        bank.then([Act::Hold]);
    }
    let calls = || one.bank.calls() + two.bank.calls();
    let mut asked = JoinSet::new();
    for _ in 0..40 {
        let call = one.client.shared(eur());
        asked.spawn(async move { call.await.unwrap().call });
    }
    until("one of them is called", async || calls() == 1).await;
    // The claim's time goes by, two seconds, and the holder renews it.
    let stream = nats.js.get_stream("KV_shared").await.unwrap();
    let claimed = async || {
        let claim = stream.get_last_raw_message_by_subject("$KV.shared.eur");
        claim.await.unwrap().time
    };
    let first = claimed().await;
    until("the claim is renewed", async || {
        claimed().await - first > Duration::from_secs(2)
    })
    .await;
    assert_eq!(calls(), 1);
    for bank in [&one.bank, &two.bank] {
        bank.gate.add_permits(1);
    }
    while let Some(call) = soon("an answer", asked.join_next()).await {
        assert_eq!(call.unwrap(), 1);
    }
    assert_eq!(calls(), 1);
}

#[tokio::test]
async fn a_claim_whose_holder_is_gone_is_taken_over_and_one_that_fails_gives_its_claim_up() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    // As an instance leaves it that is killed.
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    headers.insert("Nats-Service-Cache", "claim");
    let claim = nats
        .js
        .publish_with_headers("$KV.shared.eur", headers, "".into());
    claim.await.unwrap().await.unwrap();
    let begun = Instant::now();
    assert_eq!(client.shared(eur()).await.unwrap().call, 1);
    let waited = begun.elapsed();
    assert!(
        waited > Duration::from_secs(1) && waited < Duration::from_secs(7),
        "{waited:?}"
    );

    // The next one does not wait for the lease of one that has failed.
    bank.then([Act::Closed, Act::Panic]);
    let begun = Instant::now();
    for code in [Code::Unavailable, Code::Internal] {
        assert_eq!(
            client.shared("usd".to_owned()).await.unwrap_err().code(),
            code
        );
    }
    assert_eq!(client.shared("usd".to_owned()).await.unwrap().call, 4);
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn an_eviction_ends_a_claim_and_what_was_claimed_is_not_stored() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    bank.then([Act::Hold, Act::Hold]);
    let old = tokio::spawn(client.shared(eur()).into_future());
    called(bank, 1).await;
    client.forget_shared(eur()).await.unwrap();
    let new = tokio::spawn(client.shared(eur()).into_future());
    called(bank, 2).await;
    bank.gate.add_permits(2);
    assert_eq!(old.await.unwrap().unwrap().call, 1);
    assert_eq!(new.await.unwrap().unwrap().call, 2);
    let entry = client.stores().unwrap().shared().at("eur").unwrap();
    until("the newer answer is stored", async || {
        let stored = entry
            .get()
            .await
            .unwrap()
            .map(|entry| entry.into_value().call);
        assert_ne!(stored, Some(1));
        stored == Some(2)
    })
    .await;
}
