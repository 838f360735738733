//! Calls that may happen twice are repeated while it makes sense; no other ever is.

use nats_service::{CallError, Code, Error, Retry, Server, ServiceError, nats_service};
use nats_service_tests::{Nats, soon};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[derive(Debug, PartialEq, ServiceError)]
enum LampError {
    #[service_error(code = Unavailable, message = "not now")]
    NotNow,
    #[service_error(code = NotFound, message = "no such lamp")]
    NoLamp,
}

#[nats_service]
trait Lamps {
    #[endpoint(idempotent)]
    async fn switch_on(&self, lamp: u32) -> Result<u32, Error>;

    #[endpoint(idempotent)]
    async fn find(&self, lamp: u32) -> Result<u32, LampError>;

    async fn toggle(&self, lamp: u32) -> Result<u32, Error>;
}

/// Fails so often, and then no more.
#[derive(Debug, Default)]
struct House {
    failures: AtomicUsize,
    begun: AtomicUsize,
    /// The first calls hang.
    hanging: AtomicUsize,
}

impl House {
    async fn switch(&self, lamp: u32) -> Result<u32, Error> {
        self.begun.fetch_add(1, SeqCst);
        if take(&self.hanging) {
            std::future::pending::<()>().await;
        }
        match take(&self.failures) {
            true => Err(Error::unavailable("not now")),
            false => Ok(lamp),
        }
    }
}

fn take(count: &AtomicUsize) -> bool {
    let less = |left: usize| left.checked_sub(1);
    count.fetch_update(SeqCst, SeqCst, less).is_ok()
}

#[derive(Debug, Clone, Default)]
struct Hand(Arc<House>);

impl Lamps for Hand {
    async fn switch_on(&self, lamp: u32) -> Result<u32, Error> {
        self.0.switch(lamp).await
    }
    async fn find(&self, lamp: u32) -> Result<u32, LampError> {
        let found = self.0.switch(lamp).await.map_err(|_| LampError::NotNow);
        found.and_then(|lamp| {
            if lamp == 404 {
                Err(LampError::NoLamp)
            } else {
                Ok(lamp)
            }
        })
    }
    async fn toggle(&self, lamp: u32) -> Result<u32, Error> {
        self.0.switch(lamp).await
    }
}

/// A house that runs, and a client of it with short pauses.
async fn house(nats: &Nats) -> (nats_service::Running, Arc<House>, LampsClient) {
    let hand = Hand::default();
    let house = hand.0.clone();
    let server = Server::new(nats.client.clone()).serve(LampsServer::new(hand));
    let running = server.start().await.expect("a house");
    (running, house, client(nats))
}

fn client(nats: &Nats) -> LampsClient {
    LampsClient::new(nats.client.clone()).with_retry(quick())
}

fn quick() -> Retry {
    Retry::default().backoff(Duration::from_millis(10), Duration::from_millis(40))
}

#[tokio::test]
async fn an_idempotent_call_waits_for_a_service_that_is_just_being_replaced() {
    let nats = Nats::start().await;
    let call = client(&nats)
        .switch_on(7)
        .retry(quick().attempts(1_000).budget(1_000));
    let call = tokio::spawn(call.timeout(nats_service_tests::PATIENCE).reply());
    // Nobody listens, for a while.
    let (_running, house, _) = house(&nats).await;
    let reply = soon("an answer", call).await.unwrap().unwrap();
    assert_eq!((reply.value, house.begun.load(SeqCst)), (7, 1));
}

#[tokio::test]
async fn unavailable_is_repeated_and_the_answer_says_how_often() {
    let nats = Nats::start().await;
    let (_running, house, client) = house(&nats).await;
    house.failures.store(2, SeqCst);
    let reply = soon("an answer", client.switch_on(7).reply())
        .await
        .unwrap();
    assert_eq!((reply.value, reply.attempts), (7, 3));
    assert_eq!(house.begun.load(SeqCst), 3);
    assert_eq!(client.switch_on(7).reply().await.unwrap().attempts, 1);
}

#[tokio::test]
async fn a_call_that_is_given_up_says_how_often_it_was_sent_and_what_came_last() {
    let nats = Nats::start().await;
    match soon("an error", client(&nats).switch_on(7)).await {
        Err(error @ CallError::GaveUp { attempts: 4, .. }) => {
            assert_eq!(error.code(), Code::Unavailable);
            let text = "gave up after 4 attempts: no service listens on `lamps.switch_on`";
            assert_eq!(error.to_string(), text);
            let CallError::GaveUp { last, .. } = error else {
                unreachable!()
            };
            assert!(matches!(*last, CallError::NoResponders { .. }));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_error_of_the_services_own_stays_typed_whether_it_is_worth_a_repeat_or_not() {
    let nats = Nats::start().await;
    let (_running, house, client) = house(&nats).await;
    let found = soon("an error", client.find(404)).await;
    assert!(matches!(found, Err(CallError::Service(LampError::NoLamp))));
    assert_eq!(house.begun.swap(0, SeqCst), 1);
    house.failures.store(usize::MAX, SeqCst);
    let found = soon("an error", client.find(1)).await;
    assert!(
        matches!(found, Err(CallError::Service(LampError::NotNow))),
        "{found:?}"
    );
    assert_eq!(house.begun.load(SeqCst), 4);
}

#[tokio::test]
async fn a_call_that_may_not_happen_twice_is_sent_once_unless_its_caller_says_that_it_may() {
    let nats = Nats::start().await;
    let nobody = soon("an error", client(&nats).toggle(7)).await;
    assert!(matches!(nobody, Err(CallError::NoResponders { .. })));
    let (_running, house, client) = house(&nats).await;
    house.failures.store(1, SeqCst);
    let refused = soon("an error", client.toggle(7)).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    assert_eq!(house.begun.swap(0, SeqCst), 1);
    house.failures.store(1, SeqCst);
    let said = soon("an answer", client.toggle(7).idempotent()).await;
    assert_eq!((said.unwrap(), house.begun.swap(0, SeqCst)), (7, 2));
    house.failures.store(1, SeqCst);
    let never = soon("an error", client.switch_on(7).retry(Retry::never())).await;
    assert!(never.is_err() && house.begun.load(SeqCst) == 1);
}

#[tokio::test]
async fn a_time_out_is_followed_by_another_attempt_only_where_an_attempt_has_one_of_its_own() {
    let nats = Nats::start().await;
    let (_running, house, client) = house(&nats).await;
    house.hanging.store(1, SeqCst);
    // Long enough for an attempt that does not hang, on a machine that is busy.
    let time = Duration::from_secs(2);
    let whole = client.switch_on(7).timeout(time);
    match soon("a time-out", whole).await {
        Err(CallError::Timeout { after, .. }) => assert_eq!(after, time),
        other => panic!("{other:?}"),
    }
    assert_eq!(house.begun.swap(0, SeqCst), 1);
    house.hanging.store(1, SeqCst);
    let policy = quick().attempt_timeout(time);
    let call = client
        .switch_on(7)
        .retry(policy)
        .timeout(nats_service_tests::PATIENCE);
    let reply = soon("an answer", call.reply()).await.unwrap();
    assert_eq!((reply.value, reply.attempts), (7, 2));
    let call = client.toggle(7).retry(policy);
    assert_eq!(soon("an answer", call.reply()).await.unwrap().attempts, 1);
}

#[tokio::test]
async fn repeats_never_outlast_the_calls_own_time_out() {
    let nats = Nats::start().await;
    let policy = quick().attempts(u32::MAX).budget(u32::MAX);
    let client = LampsClient::new(nats.client.clone()).with_retry(policy);
    let begin = Instant::now();
    let call = client.switch_on(7).timeout(Duration::from_secs(1));
    let ended = soon("an error", call).await;
    assert!(
        matches!(ended, Err(CallError::GaveUp { attempts: 2.., .. })),
        "{ended:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn many_callers_of_a_service_that_is_down_repeat_no_more_than_their_budget() {
    let nats = Nats::start().await;
    let (_running, house, _) = house(&nats).await;
    house.failures.store(usize::MAX, SeqCst);
    let client = LampsClient::new(nats.client.clone()).with_retry(quick().budget(20));
    let mut calls = JoinSet::new();
    for lamp in 0..200 {
        let client = client.clone();
        calls.spawn(async move { client.switch_on(lamp).await });
    }
    while let Some(ended) = soon("an error", calls.join_next()).await {
        assert_eq!(ended.unwrap().unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(house.begun.swap(0, SeqCst), 220);
    // What succeeds earns it back, a tenth a call.
    house.failures.store(0, SeqCst);
    for lamp in 0..20 {
        client.switch_on(lamp).await.unwrap();
    }
    house.failures.store(1, SeqCst);
    assert_eq!(client.switch_on(1).reply().await.unwrap().attempts, 2);
}
