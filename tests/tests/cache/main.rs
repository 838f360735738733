//! `#[kv_cache]`: what is looked up, what is called, what is kept, and what never comes back.

mod answers;
mod claims;
mod evictions;
mod flights;
mod kept;
mod outages;

use async_nats::HeaderMap;
use nats_service::{Running, Server, ServiceError, message, nats_service};
use nats_service_tests::{Nats, connect, desk, until};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

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
    fn new(acts: impl IntoIterator<Item = Act>) -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            acts: Mutex::new(acts.into_iter().collect()),
            gate: Semaphore::new(0),
        })
    }

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
    let bank = Bank::new([]);
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
