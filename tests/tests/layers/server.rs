//! On the service's side: around decoding and the handler, inside the reply and the stores.

use crate::gate::{GateClient, GateServer, User, Word, change, gate, hand, mark};
use futures_util::TryStreamExt as _;
use nats_service::layer::{Next, Request, Response};
use nats_service::{CallError, Code, Error};
use nats_service_tests::desk::stats;
use nats_service_tests::{Nats, PATIENCE, soon, until};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tower::layer::layer_fn;
use tower::limit::ConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tower::{Service, ServiceBuilder};

#[tokio::test]
async fn the_first_layer_sees_a_request_first_and_the_server_s_before_the_service_s() {
    let nats = Nats::start().await;
    let hand = hand();
    let inner = GateServer::new(hand).layer(mark("c")).layer(mark("d"));
    let server = nats_service::Server::new(nats.client.clone())
        .layer(mark("a"))
        .serve(inner)
        .layer(mark("b"));
    let _running = server.start().await.unwrap();
    let client = GateClient::new(nats.client.clone());
    assert_eq!(
        soon("an answer", client.pass("hi".to_string()))
            .await
            .unwrap(),
        "hi nobody a>b>c>d"
    );
}

#[tokio::test]
async fn what_a_layer_keeps_reaches_the_handler_and_headers_go_both_ways() {
    let nats = Nats::start().await;
    let identify = MapRequestLayer::new(|request: Request| {
        let name = request.header("X-Token").map(str::to_owned);
        request.insert(User(name.unwrap_or_default()));
        request
    });
    let sign = MapResponseLayer::new(|mut response: Response| {
        assert!(response.headers.get("X-Handler").is_some());
        response.headers.insert("X-Layer", "too");
        response
    });
    let (_running, _, client) = gate(&nats, |server| server.layer(identify).layer(sign)).await;
    let call = client.pass("hi".to_string()).header("X-Token", "ada");
    let reply = soon("an answer", call.reply()).await.unwrap();
    assert_eq!(reply.value, "hi ada -");
    assert!(reply.headers.get("X-Layer").is_some() && reply.headers.get("X-Handler").is_some());
    match soon("an error", client.pass("fail".to_string())).await {
        Err(CallError::Service(error)) => assert_eq!(error.code(), Code::NotFound),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_timeout_of_tower_stops_the_handler_and_is_deadline_exceeded() {
    let nats = Nats::start().await;
    let limit = TimeoutLayer::new(Duration::from_millis(50));
    let (_running, keeper, client) = gate(&nats, |server| server.layer(limit)).await;
    let error = soon("an error", client.hold()).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.to_string().contains("layer"), "{error}");
    assert_eq!(keeper.running.load(SeqCst), 0);
    let counted = stats(&nats.client, "gate", "hold").await;
    assert_eq!(
        (&counted["num_requests"], &counted["num_errors"]),
        (&1.into(), &1.into())
    );
}

#[tokio::test]
async fn a_concurrency_limit_lets_calls_wait_and_with_load_shed_refuses_them() {
    let nats = Nats::start().await;
    let one = ConcurrencyLimitLayer::new(1);
    let (_running, keeper, client) = gate(&nats, |server| server.layer(one)).await;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        calls.spawn(async move { client.hold().await });
    }
    keeper.gate.add_permits(8);
    while let Some(ended) = soon("an answer", calls.join_next()).await {
        assert_eq!(ended.unwrap().unwrap(), 7);
    }
    assert_eq!(keeper.most.load(SeqCst), 1);
    drop(_running);

    let shed = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .into_inner();
    let (_running, keeper, client) = gate(&nats, |server| server.layer(shed)).await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.hold().await }
    });
    until("one runs", async || keeper.running.load(SeqCst) == 1).await;
    let error = soon("an error", client.hold()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    keeper.gate.add_permits(1);
    assert_eq!(soon("the first", first).await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn a_rate_limit_behind_a_buffer_spreads_calls_and_loses_none() {
    let nats = Nats::start().await;
    let slow = ServiceBuilder::new()
        .buffer::<Request>(64)
        .rate_limit(2, Duration::from_millis(200));
    let (_running, _, client) = gate(&nats, |server| server.layer(slow.into_inner())).await;
    let begin = Instant::now();
    let mut calls = JoinSet::new();
    for i in 0..6 {
        let client = client.clone();
        calls.spawn(async move { client.pass(i.to_string()).await });
    }
    while let Some(ended) = soon("an answer", calls.join_next()).await {
        ended.unwrap().unwrap();
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(400),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn an_error_of_the_crate_is_told_and_any_other_s_text_stays_with_the_operator() {
    let nats = Nats::start().await;
    let doorman = change(|_| Err(Error::unauthenticated("who are you?").into()));
    let (running, keeper, client) = gate(&nats, |server| server.layer(doorman)).await;
    let error = soon("an error", client.pass("hi".to_string()))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().contains("who are you?")),
        (Code::Unauthenticated, true)
    );
    assert_eq!(keeper.begun.load(SeqCst), 1);
    drop(running);
    let broken = change(|_| Err("the password is secret".into()));
    let (_running, _, client) = gate(&nats, |server| server.layer(broken)).await;
    let error = soon("an error", client.pass("hi".to_string()))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().contains("secret")),
        (Code::Internal, false)
    );
}

#[tokio::test]
async fn a_panic_in_a_layer_or_below_it_is_one_error_reply_and_the_endpoint_lives() {
    let nats = Nats::start().await;
    let fuse = MapRequestLayer::new(|request: Request| {
        assert!(request.header("X-Fuse").is_none(), "secret");
        request
    });
    let (_running, _, client) = gate(&nats, |server| server.layer(fuse)).await;
    for call in [
        client.pass("panic".to_string()),
        client.pass("hi".to_string()).header("X-Fuse", "1"),
    ] {
        let error = soon("an error", call).await.unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().contains("secret")),
            (Code::Internal, false)
        );
    }
    assert!(
        soon("an answer", client.pass("hi".to_string()))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn what_is_stored_is_what_the_layers_let_through() {
    let nats = Nats::start().await;
    let censor = layer_fn(|next: Next| Censor(next));
    let (running, _, client) = gate(&nats, |server| server.layer(censor)).await;
    let said = |text: &str| Word { text: text.into() };
    assert_eq!(
        client.keep(1, "plain".to_string()).await.unwrap(),
        said("plain")
    );
    assert_eq!(
        client.keep(2, "rude".to_string()).await.unwrap(),
        said("changed")
    );
    assert!(client.keep(3, "forbidden".to_string()).await.is_err());
    assert_eq!(
        client.keep(4, "replay".to_string()).await.unwrap(),
        said("replayed")
    );
    // What was answered is stored when it has stopped.
    running.shutdown(PATIENCE).await.unwrap();
    let stores = client.stores().unwrap().keep();
    let mut kept = Vec::new();
    for id in 1..=4 {
        let entry = stores.at(id).unwrap().get().await.unwrap();
        kept.push(entry.map(|entry| entry.into_value().text));
    }
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(kept, [text("plain"), text("changed"), None, None]);
}

#[tokio::test]
async fn a_cached_answer_passes_the_layers_like_any_other() {
    let nats = Nats::start().await;
    let doorman = MapRequestLayer::new(|request: Request| request);
    let sign = MapResponseLayer::new(|mut response: Response| {
        response.headers.insert("X-Layer", "too");
        response
    });
    let (_running, keeper, client) = gate(&nats, |server| server.layer(doorman).layer(sign)).await;
    until("it comes from the cache", async || {
        let reply = client.look(1).reply().await.unwrap();
        assert_eq!(reply.value.text, "looked");
        assert!(reply.headers.get("X-Layer").is_some());
        reply.headers.get("Nats-Service-Cache").is_some()
    })
    .await;
    assert!(keeper.begun.load(SeqCst) >= 1);
}

#[tokio::test]
async fn a_stream_is_opened_through_the_layers_of_both_sides_or_not_at_all() {
    let nats = Nats::start().await;
    let doorman = layer_fn(|next: Next| Doorman(next));
    let (_running, keeper, client) = gate(&nats, |server| server.layer(doorman)).await;
    let Err(error) = soon("an error", client.spell()).await else {
        panic!("no token was sent");
    };
    assert_eq!(
        (error.code(), keeper.begun.load(SeqCst)),
        (Code::Unauthenticated, 0)
    );
    let client = client.layer(MapRequestLayer::new(|mut request: Request| {
        request.headers.insert("X-Token", "ada");
        request
    }));
    let letters = soon("a stream", client.spell()).await.unwrap();
    let letters: Vec<char> = soon("all", letters.try_collect()).await.unwrap();
    assert_eq!(letters, ['a', 'd', 'a']);
}

#[derive(Clone)]
struct Doorman(Next);

impl Service<Request> for Doorman {
    type Response = Response;
    type Error = nats_service::layer::BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match request.header("X-Token").map(str::to_owned) {
            Some(name) => request.insert(User(name)),
            None => return Box::pin(async { Err(Error::unauthenticated("no token").into()) }),
        }
        Box::pin(self.0.call(request))
    }
}

/// Looks into bodies, both ways.
#[derive(Clone)]
struct Censor(Next);

impl Service<Request> for Censor {
    type Response = Response;
    type Error = nats_service::layer::BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let asked = String::from_utf8_lossy(&request.body).into_owned();
        let next = self.0.call(request);
        Box::pin(async move {
            if asked.contains("replay") {
                return Ok(Response::new(r#"{"text":"replayed"}"#));
            }
            let mut response = next.await?;
            if asked.contains("rude") {
                response.set_body(r#"{"text":"changed"}"#);
            }
            if asked.contains("forbidden") {
                return Ok(Response::from(Error::permission_denied("no")));
            }
            Ok(response)
        })
    }
}

#[tokio::test]
async fn a_local_service_has_its_layers() {
    let server = GateServer::new(hand())
        .layer(mark("a"))
        .layer(TimeoutLayer::new(Duration::from_millis(50)));
    let client = GateClient::local_from(server);
    assert_eq!(
        soon("an answer", client.pass("hi".to_string()))
            .await
            .unwrap(),
        "hi nobody a"
    );
    let error = soon("an error", client.hold()).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}
