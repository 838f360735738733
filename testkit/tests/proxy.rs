//! What the proxy promises.

mod common;

use std::time::Duration;

use common::{LONG, client, round_trip, until};
use nats_service_testkit::{Error, Proxy, TestServer};
use tokio::time::timeout;

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn a_cut_ends_connections_and_refuses_new_ones_until_it_passes() -> Outcome {
    let server = TestServer::start().await?;
    let proxy = Proxy::start(server.url()).await?;
    let client = client(proxy.url()).await;
    round_trip(&client).await;
    let port = proxy.port();

    proxy.cut().await?;
    until("the client's notice", async || {
        client.connection_state() != async_nats::connection::State::Connected
    })
    .await;
    assert!(async_nats::connect(proxy.url()).await.is_err());
    assert!(
        async_nats::connect(server.url()).await.is_ok(),
        "the server itself is well"
    );

    proxy.pass().await?;
    assert_eq!(proxy.port(), port);
    timeout(LONG, round_trip(&client)).await?;
    Ok(())
}

#[tokio::test]
async fn a_stall_keeps_connections_and_delivers_later() -> Outcome {
    let server = TestServer::start().await?;
    let proxy = Proxy::start(server.url()).await?;
    let client = client(proxy.url()).await;
    round_trip(&client).await;

    proxy.stall().await?;
    let trip = round_trip(&client);
    tokio::pin!(trip);
    assert!(
        timeout(Duration::from_millis(200), &mut trip)
            .await
            .is_err(),
        "no answer while stalled"
    );
    assert_eq!(
        client.connection_state(),
        async_nats::connection::State::Connected
    );

    proxy.pass().await?;
    timeout(LONG, trip).await?;
    assert_eq!(
        client
            .statistics()
            .connects
            .load(std::sync::atomic::Ordering::Relaxed),
        1,
        "on the same connection"
    );
    Ok(())
}

#[tokio::test]
async fn it_ends_with_its_value() -> Outcome {
    let server = TestServer::start().await?;
    let proxy = Proxy::start(server.url()).await?;
    let url = proxy.url().to_owned();
    let client = client(&url).await;
    drop(proxy);
    until("the client's notice", async || {
        client.connection_state() != async_nats::connection::State::Connected
    })
    .await;
    assert!(async_nats::connect(url).await.is_err());
    Ok(())
}

#[tokio::test]
async fn what_is_no_address_is_refused() {
    for upstream in ["", "nats://", "127.0.0.1", "nats://127.0.0.1:port"] {
        assert!(
            matches!(Proxy::start(upstream).await, Err(Error::Upstream { .. })),
            "{upstream:?}"
        );
    }
}
