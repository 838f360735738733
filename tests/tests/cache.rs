//! `#[kv_cache]`: what is looked up, what is called, what is kept, and what never comes back.

use async_nats::HeaderMap;
use async_nats::jetstream;
use nats_service::{
    CallError, Code, Error, Reply, Running, Server, ServiceError, message, nats_service,
};
use nats_service_testkit::TestCluster;
use nats_service_tests::{Nats, connect, desk, soon, until};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

#[message]
#[derive(Debug, Clone, PartialEq)]
struct Quote {
    currency: String,
    /// Which call of the handler gave it.
    call: usize,
}

#[derive(Debug, PartialEq, ServiceError)]
enum RateError {
    #[service_error(code = NotFound, message = "nobody quotes {currency}")]
    NoSuch { currency: String },
    #[service_error(code = Unavailable, message = "the bank is closed")]
    Closed,
}

#[nats_service(version = "1.0.0", timeout = "20s")]
trait Rates {
    #[kv_cache(bucket = "rates", key = "rate.<currency>", ttl = "1h")]
    async fn rate(&self, currency: String) -> Result<Quote, RateError>;

    #[kv_evict(bucket = "rates", key = "rate.<currency>", write = "before_reply")]
    async fn forget(&self, currency: String) -> Result<(), RateError>;

    #[endpoint(timeout = "2s")]
    #[kv_cache(
        bucket = "sure",
        key = "<currency>",
        ttl = "1h",
        write = "before_reply",
        name = "quotes"
    )]
    async fn surely(&self, currency: String) -> Result<Quote, RateError>;

    #[endpoint(timeout = "1500ms")]
    #[kv_cache(
        bucket = "brief",
        key = "<currency>",
        ttl = "200ms",
        stale_on_error = "1h",
        write = "before_reply"
    )]
    async fn brief(&self, currency: String) -> Result<Quote, RateError>;

    #[kv_cache(
        bucket = "plain",
        key = "<currency>",
        ttl = "1h",
        write = "before_reply"
    )]
    async fn maybe(&self, currency: String) -> Result<Option<Quote>, RateError>;

    #[kv_cache(
        bucket = "noted",
        key = "<currency>",
        ttl = "1h",
        cache_none = "1h",
        cache_errors(NotFound = "1h"),
        write = "before_reply"
    )]
    async fn noted(&self, currency: String) -> Result<Option<Quote>, RateError>;

    #[kv_cache(bucket = "odd", key = "<currency>", ttl = "1h", write = "before_reply", when = |_, quote| quote.call % 2 == 1)]
    async fn odd(&self, currency: String) -> Result<Quote, RateError>;

    #[endpoint(timeout = "8s")]
    #[kv_cache(
        bucket = "shared",
        key = "<currency>",
        ttl = "1h",
        single_flight = "cluster"
    )]
    async fn shared(&self, currency: String) -> Result<Quote, RateError>;

    #[kv_evict(bucket = "shared", key = "<currency>", write = "before_reply")]
    async fn forget_shared(&self, currency: String) -> Result<(), RateError>;
}

/// What a handler is to do, call by call; it answers when nothing is said.
enum Act {
    Hold,
    Never,
    Nothing,
    NotFound,
    Closed,
    Panic,
}

struct Bank {
    calls: AtomicUsize,
    acts: Mutex<VecDeque<Act>>,
    gate: Semaphore,
}

impl Bank {
    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    fn then(&self, acts: impl IntoIterator<Item = Act>) {
        self.acts.lock().unwrap().extend(acts);
    }

    async fn quote(&self, currency: String) -> Result<Option<Quote>, RateError> {
        let call = self.calls.fetch_add(1, SeqCst) + 1;
        let act = self.acts.lock().unwrap().pop_front();
        match act {
            None => {}
            Some(Act::Hold) => self.gate.acquire().await.unwrap().forget(),
            Some(Act::Never) => std::future::pending().await,
            Some(Act::Nothing) => return Ok(None),
            Some(Act::NotFound) => return Err(RateError::NoSuch { currency }),
            Some(Act::Closed) => return Err(RateError::Closed),
            Some(Act::Panic) => {
                tokio::task::yield_now().await;
                panic!("the handler fails")
            }
        }
        Ok(Some(Quote { currency, call }))
    }

    async fn sure(&self, currency: String) -> Result<Quote, RateError> {
        Ok(self.quote(currency).await?.expect("not asked for nothing"))
    }
}

#[derive(Clone)]
struct Hand(Arc<Bank>);

impl Rates for Hand {
    async fn rate(&self, currency: String) -> Result<Quote, RateError> {
        self.0.sure(currency).await
    }
    async fn forget(&self, _currency: String) -> Result<(), RateError> {
        Ok(())
    }
    async fn surely(&self, currency: String) -> Result<Quote, RateError> {
        self.0.sure(currency).await
    }
    async fn brief(&self, currency: String) -> Result<Quote, RateError> {
        self.0.sure(currency).await
    }
    async fn maybe(&self, currency: String) -> Result<Option<Quote>, RateError> {
        self.0.quote(currency).await
    }
    async fn noted(&self, currency: String) -> Result<Option<Quote>, RateError> {
        self.0.quote(currency).await
    }
    async fn odd(&self, currency: String) -> Result<Quote, RateError> {
        self.0.sure(currency).await
    }
    async fn shared(&self, currency: String) -> Result<Quote, RateError> {
        self.0.sure(currency).await
    }
    async fn forget_shared(&self, _currency: String) -> Result<(), RateError> {
        Ok(())
    }
}

struct Served {
    _running: Running,
    bank: Arc<Bank>,
    client: RatesClient,
}

async fn served_with(nats: &Nats, change: impl FnOnce(Server) -> Server) -> Served {
    let (own, js) = connect(&nats.server).await;
    let bank = Arc::new(Bank {
        calls: AtomicUsize::new(0),
        acts: Mutex::default(),
        gate: Semaphore::new(0),
    });
    let server = Server::new(own).with_jetstream(js);
    let server = change(server).serve(RatesServer::new(Hand(bank.clone())));
    let running = server.start().await.expect("a server");
    let client = RatesClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    Served {
        _running: running,
        bank,
        client,
    }
}

async fn served(nats: &Nats) -> Served {
    served_with(nats, |server| server).await
}

fn eur() -> String {
    "eur".to_owned()
}

fn from(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("Nats-Service-Cache")
        .map(|value| value.as_str())
}

async fn counted(nats: &Nats, endpoint: &str, counter: &str) -> u64 {
    let stats = desk::stats(&nats.client, "rates", endpoint).await;
    let counter = &stats["data"]["cache"][counter];
    counter
        .as_u64()
        .unwrap_or_else(|| panic!("no `{counter}` in {stats}"))
}

/// Waits until the handler was called so often.
async fn called(bank: &Bank, calls: usize) {
    until("the handler is called", async || bank.calls() == calls).await;
}

#[tokio::test]
async fn an_answer_is_given_again_without_a_call_and_says_where_it_is_from() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    let first = client.rate(eur()).reply().await.unwrap();
    assert_eq!(
        (first.value.call, from(&first.headers), first.revision),
        (1, None, None)
    );
    let entry = client.stores().unwrap().rate().at("eur").unwrap();
    until("the answer is stored", async || {
        entry.get().await.unwrap().is_some()
    })
    .await;

    let second: Reply<Quote> = client.rate(eur()).reply().await.unwrap();
    let stored = entry.get().await.unwrap().unwrap();
    assert_eq!(
        (&second.value, from(&second.headers)),
        (&first.value, Some("hit"))
    );
    assert_eq!(
        (second.revision, stored.value()),
        (Some(stored.revision), &first.value)
    );
    assert_eq!(client.rate("usd".to_owned()).await.unwrap().call, 2);
    assert_eq!(bank.calls(), 2);
    let of = async |counter| counted(&nats, "rate", counter).await;
    assert_eq!(
        (of("hits").await, of("misses").await, of("waited").await),
        (1, 2, 0)
    );
}

#[tokio::test]
async fn a_value_that_is_written_first_is_there_with_the_reply() {
    let nats = Nats::start().await;
    let Served { client, .. } = &served(&nats).await;
    let reply = client.surely(eur()).reply().await.unwrap();
    let stores = client.stores().unwrap();
    let stored = stores
        .quotes()
        .at("eur")
        .unwrap()
        .get()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (reply.revision, stored.value()),
        (Some(stored.revision), &reply.value)
    );
    assert_eq!(client.surely(eur()).await.unwrap().call, 1);
}

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

    // The leader has two seconds; one that came a second later still has one when it is over.
    bank.then([Act::Never]);
    let first = tokio::spawn(
        client
            .surely("usd".to_owned())
            .timeout(Duration::from_secs(5))
            .into_future(),
    );
    called(bank, 3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = client
        .surely("usd".to_owned())
        .timeout(Duration::from_secs(5))
        .await;
    let first = first.await.unwrap().unwrap_err();
    assert_eq!(
        (first.code(), second.unwrap().call),
        (Code::DeadlineExceeded, 4)
    );
}

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

#[tokio::test]
async fn a_condition_decides_what_is_kept() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    assert_eq!(client.odd(eur()).await.unwrap().call, 1);
    assert_eq!(client.odd(eur()).await.unwrap().call, 1);
    for call in [2, 3, 3] {
        assert_eq!(client.odd("usd".to_owned()).await.unwrap().call, call);
    }
    assert_eq!(bank.calls(), 3);
}

/// Waits until what `brief` has stored is no longer fresh.
async fn no_longer_fresh() {
    tokio::time::sleep(Duration::from_millis(400)).await;
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
    no_longer_fresh().await;
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

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_a_miss_and_is_overwritten() {
    let nats = Nats::start().await;
    let Served { client, .. } = &served(&nats).await;
    let bucket = nats.js.get_key_value("sure").await.unwrap();
    bucket
        .put("eur", "{\"no\": \"quote\"}".into())
        .await
        .unwrap();
    assert_eq!(client.surely(eur()).await.unwrap().call, 1);
    assert_eq!(client.surely(eur()).await.unwrap().call, 1);
    assert_eq!(counted(&nats, "surely", "undecodable").await, 1);
}

#[tokio::test]
async fn what_was_begun_before_an_eviction_is_not_stored_after_it_and_given_to_nobody_who_came_after_it()
 {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    let entry = client.stores().unwrap().rate().at("eur").unwrap();
    // Once with a key that was never written, once with one that was evicted before.
    for round in 0..2 {
        bank.then([Act::Hold, Act::Hold]);
        let before = bank.calls();
        let old = tokio::spawn(client.rate(eur()).into_future());
        called(bank, before + 1).await;
        client.forget(eur()).await.unwrap();
        let new = tokio::spawn(client.rate(eur()).into_future());
        called(bank, before + 2).await;
        bank.gate.add_permits(2);
        assert_eq!(old.await.unwrap().unwrap().call, before + 1);
        let new = new.await.unwrap().unwrap();
        assert_eq!(new.call, before + 2);
        until(
            "the newer answer is stored, and the older one is not",
            async || {
                let stored = entry.get().await.unwrap().map(|entry| entry.into_value());
                assert!(
                    stored.as_ref().is_none_or(|stored| *stored == new),
                    "{stored:?}"
                );
                stored.is_some() && counted(&nats, "rate", "outdated").await == round + 1
            },
        )
        .await;
        client.forget(eur()).await.unwrap();
    }
}

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
    let bank = Arc::new(Bank {
        calls: AtomicUsize::new(0),
        acts: Mutex::default(),
        gate: Semaphore::new(0),
    });
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

#[nats_service(codec = "msgpack", version = "1.0.0")]
trait Packed {
    #[kv_cache(
        bucket = "packed",
        key = "<currency>",
        ttl = "1h",
        cache_none = "1m",
        write = "before_reply"
    )]
    async fn packed(&self, currency: String) -> Result<Option<Quote>, Error>;
}

impl Packed for Hand {
    async fn packed(&self, currency: String) -> Result<Option<Quote>, Error> {
        let quote = self.0.quote(currency).await;
        quote.map_err(|error| Error::internal(error.to_string()))
    }
}

#[tokio::test]
async fn an_entry_is_given_in_the_codec_that_its_caller_speaks() {
    let nats = Nats::start().await;
    let Served { bank, .. } = &served(&nats).await;
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let server = server.serve(PackedServer::new(Hand(bank.clone())));
    let _running = server.start().await.unwrap();
    let client = PackedClient::new(nats.client.clone());
    let first = client.packed(eur()).await.unwrap().unwrap();
    let json = [("Content-Type", "application/json")];
    let reply = desk::ask_with(&nats.client, "packed.packed", &json, "\"eur\"").await;
    assert_eq!(from(reply.headers.as_ref().unwrap()), Some("hit"));
    assert_eq!(
        serde_json::from_slice::<Quote>(&reply.payload).unwrap(),
        first
    );
    bank.then([Act::Nothing]);
    for _ in 0..2 {
        assert_eq!(client.packed("none".to_owned()).await.unwrap(), None);
    }
    assert_eq!(bank.calls(), 2);
}

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
    // Longer than a lease: the holder renews its claim.
    tokio::time::sleep(Duration::from_millis(2500)).await;
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

/// A table with one row, behind a cache, in an instance of its own or several.
#[nats_service(version = "1.0.0", timeout = "20s")]
trait Rows {
    #[kv_cache(bucket = "rows", key = "row", ttl = "1h", shared_key = true)]
    async fn row(&self) -> u64;

    #[kv_cache(
        bucket = "claimed",
        key = "row",
        ttl = "1h",
        shared_key = true,
        single_flight = "cluster"
    )]
    async fn claimed(&self) -> u64;

    /// Changes the row, and says so before it replies.
    #[kv_evict(bucket = "rows", key = "row", write = "before_reply")]
    #[kv_evict(bucket = "claimed", key = "row", write = "before_reply")]
    async fn change(&self) -> u64;
}

#[derive(Clone, Default)]
struct Table {
    row: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl Table {
    /// What was read is old by the time it is answered.
    async fn read(&self) -> u64 {
        let row = self.row.load(SeqCst) as u64;
        let read = self.reads.fetch_add(1, SeqCst) as u64;
        tokio::time::sleep(Duration::from_millis(read % 7)).await;
        row
    }
}

impl Rows for Table {
    async fn row(&self) -> u64 {
        self.read().await
    }
    async fn claimed(&self) -> u64 {
        self.read().await
    }
    async fn change(&self) -> u64 {
        self.row.fetch_add(1, SeqCst) as u64 + 1
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_asks_after_a_change_is_given_what_was_before_it() {
    let nats = Nats::start().await;
    let table = Table::default();
    let mut instances = Vec::new();
    for _ in 0..2 {
        let (own, js) = connect(&nats.server).await;
        let server = Server::new(own).with_jetstream(js);
        let server = server.serve(RowsServer::new(table.clone()));
        instances.push(server.start().await.unwrap());
    }
    let client = RowsClient::new(nats.client.clone());
    // The latest change whose reply has come.
    let told = Arc::new(AtomicUsize::new(0));
    let end = Instant::now() + Duration::from_secs(3);
    let mut readers = JoinSet::new();
    for reader in 0..16 {
        let (client, told) = (client.clone(), told.clone());
        readers.spawn(async move {
            let mut read = 0;
            while Instant::now() < end {
                let least = told.load(SeqCst) as u64;
                let row = if reader % 2 == 0 {
                    client.row().await.unwrap()
                } else {
                    client.claimed().await.unwrap()
                };
                assert!(row >= least, "{row} was given after {least} was told of");
                read += 1;
            }
            read
        });
    }
    let mut changes = 0;
    while Instant::now() < end {
        let row = client.change().await.unwrap();
        told.fetch_max(row as usize, SeqCst);
        changes += 1;
        tokio::time::sleep(Duration::from_millis(changes % 11)).await;
    }
    let mut reads = 0;
    while let Some(read) = soon("a reader", readers.join_next()).await {
        reads += read.unwrap();
    }
    let handled = table.reads.load(SeqCst);
    assert!(
        changes > 20 && reads > handled,
        "{changes} changes, {reads} reads, {handled} handled"
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

#[nats_service(version = "1.0.0", timeout = "20s")]
trait Replicated {
    #[kv_cache(bucket = "three", key = "<currency>", ttl = "1h", replicas = 3)]
    async fn rate(&self, currency: String) -> Result<Quote, RateError>;

    #[kv_evict(bucket = "three", key = "<currency>", write = "before_reply")]
    async fn forget(&self, currency: String) -> Result<(), RateError>;
}

impl Replicated for Hand {
    async fn rate(&self, currency: String) -> Result<Quote, RateError> {
        self.0.sure(currency).await
    }
    async fn forget(&self, _currency: String) -> Result<(), RateError> {
        Ok(())
    }
}

#[tokio::test]
async fn on_a_replicated_bucket_an_evicted_answer_is_not_stored_either() {
    let cluster = TestCluster::start().await.unwrap();
    let nats = async_nats::connect(cluster.server(0).url()).await.unwrap();
    let js = jetstream::new(nats.clone());
    let bank = Arc::new(Bank {
        calls: AtomicUsize::new(0),
        acts: Mutex::new([Act::Hold].into()),
        gate: Semaphore::new(0),
    });
    let server = Server::new(nats.clone()).with_jetstream(js.clone());
    let server = server.serve(ReplicatedServer::new(Hand(bank.clone())));
    let running = soon("a start", server.start()).await.unwrap();
    let client = ReplicatedClient::new(nats.clone()).with_jetstream(js);
    let old = tokio::spawn(client.rate(eur()).into_future());
    called(&bank, 1).await;
    client.forget(eur()).await.unwrap();
    bank.gate.add_permits(1);
    assert_eq!(old.await.unwrap().unwrap().call, 1);
    until("the old answer is refused", async || {
        let stats = desk::stats(&nats, "replicated", "rate").await;
        stats["data"]["cache"]["outdated"] == 1
    })
    .await;
    assert_eq!(client.rate(eur()).await.unwrap().call, 2);
    let entry = client.stores().unwrap().rate().at("eur").unwrap();
    until("the new one is stored", async || {
        entry.get().await.unwrap().is_some()
    })
    .await;
    running
        .shutdown(Duration::from_secs(20))
        .await
        .expect("nothing is left");
}
