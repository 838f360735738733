//! Failures and answers that say that there is nothing: which of them are kept, and what is given when the handler fails.

use super::{Act, Quote, RateError, RatesClient, Served, counted, eur, from, served};
use nats_service::{CallError, Code};
use nats_service_tests::{Nats, until};
use std::time::{Duration, Instant, SystemTime};

#[tokio::test]
async fn errors_and_absent_values_are_not_kept_unless_asked() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    bank.then([Act::Nothing, Act::Nothing, Act::NotFound, Act::NotFound]);
    for _ in 0..2 {
        assert_eq!(client.maybe(eur()).await.unwrap(), None);
    }
    for _ in 0..2 {
        assert_eq!(
            client.maybe(eur()).await.unwrap_err().code(),
            Code::NotFound
        );
    }
    assert_eq!(bank.calls(), 4);
    assert_eq!(
        client.maybe(eur()).await.unwrap().map(|quote| quote.call),
        Some(5)
    );
    assert_eq!(
        client.maybe(eur()).await.unwrap().map(|quote| quote.call),
        Some(5)
    );
}

#[tokio::test]
async fn errors_and_absent_values_that_are_to_be_kept_are() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    bank.then([Act::Nothing, Act::NotFound, Act::Closed, Act::Closed]);
    for _ in 0..2 {
        assert_eq!(client.noted("none".to_owned()).await.unwrap(), None);
    }
    let stores = client.stores().unwrap();
    for _ in 0..2 {
        let error = client.noted("dem".to_owned()).await.unwrap_err();
        let currency = "dem".to_owned();
        assert!(
            matches!(error, CallError::Service(RateError::NoSuch { currency: c }) if c == currency)
        );
        // Readers of the bucket see no value, and not one that they cannot read.
        assert!(
            stores
                .noted()
                .at("dem")
                .unwrap()
                .get()
                .await
                .unwrap()
                .is_none()
        );
    }
    assert_eq!(bank.calls(), 2);
    // Another error than those that were named.
    for _ in 0..2 {
        assert_eq!(
            client.noted("lit".to_owned()).await.unwrap_err().code(),
            Code::Unavailable
        );
    }
    assert_eq!(bank.calls(), 4);
    // A value takes the place of a kept error.
    let quote = Quote {
        currency: "dem".to_owned(),
        call: 0,
    };
    stores
        .noted()
        .at("dem")
        .unwrap()
        .put(&Some(quote.clone()))
        .await
        .unwrap();
    assert_eq!(client.noted("dem".to_owned()).await.unwrap(), Some(quote));
}

/// Waits until what `brief` has stored is older than its `ttl`.
async fn no_longer_fresh(client: &RatesClient) {
    let entry = client.stores().unwrap().brief().at("eur").unwrap();
    let stored = entry.get().await.unwrap().expect("it is stored").created;
    until("it is no longer fresh", async || {
        let age = SystemTime::now().duration_since(stored);
        age.is_ok_and(|age| age > Duration::from_millis(200))
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_no_longer_fresh_is_given_when_the_handler_fails_and_only_then() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    bank.then([Act::Closed]);
    assert_eq!(
        client.brief(eur()).await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(client.brief(eur()).await.unwrap().call, 2);
    no_longer_fresh(client).await;
    bank.then([Act::Closed, Act::Panic, Act::Never]);
    for calls in 3..=5 {
        let begun = Instant::now();
        let reply = client.brief(eur()).reply().await.unwrap();
        assert_eq!((reply.value.call, from(&reply.headers)), (2, Some("stale")));
        assert_eq!(bank.calls(), calls);
        assert!(begun.elapsed() < Duration::from_millis(1500));
    }
    assert_eq!(counted(&nats, "brief", "stale").await, 3);
    // An answer that says what is so is no failure.
    bank.then([Act::NotFound]);
    assert_eq!(
        client.brief(eur()).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(client.brief(eur()).await.unwrap().call, 7);
}
