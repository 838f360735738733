//! On the client's side: around the connection, for every attempt.

use crate::gate::{change, gate, mark};
use nats_service::{CallError, Code, Error};
use nats_service_tests::{Nats, soon, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tower::ServiceBuilder;
use tower::timeout::TimeoutLayer;

#[tokio::test]
async fn a_client_s_layers_add_headers_in_their_order_and_see_the_typed_error_s_wire_form() {
    let nats = Nats::start().await;
    let (_running, _, client) = gate(&nats, |server| server).await;
    let failures = Arc::new(AtomicUsize::new(0));
    let seen = failures.clone();
    let count = change(move |result| {
        if let Ok(Err(error)) = result.as_ref().map(|response| response.answer()) {
            assert_eq!(error.code(), Code::NotFound);
            seen.fetch_add(1, SeqCst);
        }
        result
    });
    let client = client.layer(mark("a")).layer(mark("b")).layer(count);
    let reply = soon("an answer", client.pass("hi".to_string()).reply())
        .await
        .unwrap();
    assert_eq!(reply.value, "hi nobody a>b");
    assert!(reply.headers.get("X-Handler").is_some());
    match soon("an error", client.pass("fail".to_string())).await {
        Err(CallError::Service(error)) => assert_eq!(error, Error::not_found("no such word")),
        other => panic!("{other:?}"),
    }
    assert_eq!(failures.load(SeqCst), 1);
    let all = soon("all", client.all().many().most(1)).await.unwrap();
    assert_eq!(all[0].result.as_ref().unwrap().value, "a>b");
    assert!(all[0].instance.is_some());
}

#[tokio::test]
async fn tower_s_own_layers_work_on_a_client_and_their_errors_have_codes() {
    let nats = Nats::start().await;
    let (_running, keeper, plain) = gate(&nats, |server| server).await;
    let hasty = plain
        .clone()
        .layer(TimeoutLayer::new(Duration::from_millis(50)));
    let error = soon("an error", hasty.hold()).await.unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Layer {
                code: Code::DeadlineExceeded,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let shed = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .into_inner();
    let shed = plain.layer(shed);
    // The handler that nobody waits for any more.
    keeper.gate.add_permits(1);
    until("none runs", async || keeper.running.load(SeqCst) == 0).await;
    let running = tokio::spawn({
        let shed = shed.clone();
        async move { shed.hold().await }
    });
    until("one runs", async || keeper.running.load(SeqCst) == 1).await;
    let error = soon("an error", shed.pass("hi".to_string()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    // What was refused here was not sent.
    assert_eq!(keeper.begun.load(SeqCst), 0);
    keeper.gate.add_permits(1);
    assert_eq!(soon("the first", running).await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn without_a_service_the_failure_comes_through_the_layers_as_it_is() {
    let nats = Nats::start().await;
    let (running, _, client) = gate(&nats, |server| server).await;
    running
        .shutdown(nats_service_tests::PATIENCE)
        .await
        .unwrap();
    let client = client.layer(mark("a"));
    let error = soon("an error", client.pass("hi".to_string()))
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::NoResponders { .. }), "{error:?}");
    let large = client.pass("x".repeat(2 << 20));
    let error = soon("an error", large).await.unwrap_err();
    assert!(matches!(error, CallError::TooLarge { .. }), "{error:?}");
}
