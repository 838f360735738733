//! What one server promises while its owner is well.

mod common;

use std::time::Duration;

use common::{LONG, bucket, client, round_trip};
use futures_util::StreamExt;
use nats_service_testkit::{Error, TestServer};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn it_starts_and_answers_with_jetstream() -> Outcome {
    let server = TestServer::start().await?;
    let client = client(server.url()).await;
    assert_eq!(client.server_info().server_name, server.name());
    assert_eq!(client.server_info().version, server.version());
    let store = bucket(&client, "b", 1).await;
    store.put("k", "v".into()).await?;
    assert_eq!(store.get("k").await?.as_deref(), Some(b"v".as_slice()));
    assert!(server.store_dir().join("jetstream").is_dir());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_on_a_runtime_of_several_threads() -> Outcome {
    let server = std::sync::Arc::new(TestServer::start().await?);
    let shared = server.clone();
    tokio::spawn(async move { shared.kill().await }).await??;
    server.restart().await?;
    round_trip(&client(server.url()).await).await;
    Ok(())
}

#[tokio::test]
async fn two_servers_at_once_do_not_meet() -> Outcome {
    let (one, two) = tokio::try_join!(TestServer::start(), TestServer::start())?;
    assert_ne!(one.port(), two.port());
    assert_ne!(one.store_dir(), two.store_dir());
    assert_ne!(one.pid(), two.pid());
    Ok(())
}

#[tokio::test]
async fn a_restart_keeps_port_and_data() -> Outcome {
    let server = TestServer::start().await?;
    let (port, pid) = (server.port(), server.pid());
    bucket(&client(server.url()).await, "b", 1)
        .await
        .put("k", "kept".into())
        .await?;

    server.restart().await?;

    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    let store = async_nats::jetstream::new(client(server.url()).await)
        .get_key_value("b")
        .await?;
    assert_eq!(store.get("k").await?.as_deref(), Some(b"kept".as_slice()));
    Ok(())
}

#[tokio::test]
async fn a_kill_ends_it_at_once_and_keeps_data_for_the_restart() -> Outcome {
    let server = TestServer::start().await?;
    let before = client(server.url()).await;
    bucket(&before, "b", 1)
        .await
        .put("k", "kept".into())
        .await?;

    server.kill().await?;

    assert_eq!(server.pid(), None);
    assert!(
        async_nats::connect(server.url()).await.is_err(),
        "nobody answers"
    );
    server.kill().await?;
    server.stop().await?;

    server.restart().await?;
    tokio::time::timeout(LONG, round_trip(&before)).await?;
    let store = async_nats::jetstream::new(before)
        .get_key_value("b")
        .await?;
    assert_eq!(store.get("k").await?.as_deref(), Some(b"kept".as_slice()));
    Ok(())
}

#[tokio::test]
async fn its_port_stays_its_own_while_it_is_down() -> Outcome {
    let server = TestServer::start().await?;
    server.kill().await?;
    // Nobody who asks for any port gets it; two hundred are asked for, and held.
    let others: Vec<_> = (0..200)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    for other in &others {
        assert_ne!(other.local_addr()?.port(), server.port());
    }
    server.restart().await?;
    Ok(())
}

#[tokio::test]
async fn a_stop_is_orderly() -> Outcome {
    let server = TestServer::start().await?;
    server.stop().await?;
    assert_eq!(server.pid(), None);
    assert!(server.log().contains("Server Exiting"), "{}", server.log());
    server.restart().await?;
    assert!(server.pid().is_some());
    Ok(())
}

#[tokio::test]
async fn a_pause_silences_it_and_resume_brings_it_back() -> Outcome {
    let server = TestServer::start().await?;
    let client = client(server.url()).await;
    round_trip(&client).await;

    server.pause().await?;
    assert!(server.pid().is_some(), "it is still there");
    let silent = tokio::time::timeout(Duration::from_millis(200), round_trip(&client)).await;
    assert!(silent.is_err(), "no answer while paused");

    server.resume().await?;
    tokio::time::timeout(LONG, round_trip(&client)).await?;

    server.pause().await?;
    server.stop().await?;
    assert!(
        server.log().contains("Server Exiting"),
        "a paused server stops in an orderly way too"
    );
    Ok(())
}

#[tokio::test]
async fn what_does_not_run_cannot_be_paused() -> Outcome {
    let server = TestServer::start().await?;
    server.kill().await?;
    assert!(matches!(server.pause().await, Err(Error::NotRunning)));
    assert!(matches!(server.resume().await, Err(Error::NotRunning)));
    assert!(matches!(server.lame_duck().await, Err(Error::NotRunning)));
    Ok(())
}

#[tokio::test]
async fn a_lame_duck_warns_its_clients_refuses_others_and_leaves() -> Outcome {
    let server = TestServer::start().await?;
    let (seen, mut events) = tokio::sync::mpsc::unbounded_channel();
    let client = async_nats::ConnectOptions::new()
        .event_callback(move |event| {
            let seen = seen.clone();
            async move {
                let _ = seen.send(event);
            }
        })
        .connect(server.url())
        .await?;

    server.lame_duck().await?;

    assert!(async_nats::connect(server.url()).await.is_err());
    let warned = async {
        while let Some(event) = events.recv().await {
            if event == async_nats::Event::LameDuckMode {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(LONG, warned).await?);
    drop(client);
    server.wait_for_exit().await?;
    server.restart().await?;
    Ok(())
}

#[tokio::test]
async fn its_configuration_is_the_users() -> Outcome {
    let server = TestServer::builder()
        .max_payload(2048)
        .config("authorization { user: alice, password: secret }")
        .start()
        .await?;
    assert!(
        async_nats::connect(server.url()).await.is_err(),
        "credentials are wanted"
    );
    let options =
        async_nats::ConnectOptions::with_user_and_password("alice".into(), "secret".into());
    let client = options.connect(server.url()).await?;
    assert_eq!(client.server_info().max_payload, 2048);
    bucket(&client, "b", 1).await;
    Ok(())
}

#[tokio::test]
async fn without_jetstream_there_is_none() -> Outcome {
    let server = TestServer::builder().jetstream(false).start().await?;
    let client = client(server.url()).await;
    let mut subscription = client.subscribe("s").await?;
    client.publish("s", "plain".into()).await?;
    assert!(subscription.next().await.is_some());
    assert!(
        async_nats::jetstream::new(client)
            .query_account()
            .await
            .is_err()
    );
    Ok(())
}

#[tokio::test]
async fn a_directory_of_the_users_stays() -> Outcome {
    let mine = tempfile::tempdir()?;
    let server = TestServer::builder().store_dir(mine.path()).start().await?;
    bucket(&client(server.url()).await, "b", 1)
        .await
        .put("k", "kept".into())
        .await?;
    drop(server);

    let server = TestServer::builder().store_dir(mine.path()).start().await?;
    let store = async_nats::jetstream::new(client(server.url()).await)
        .get_key_value("b")
        .await?;
    assert_eq!(store.get("k").await?.as_deref(), Some(b"kept".as_slice()));
    Ok(())
}

#[tokio::test]
async fn a_port_of_the_users_is_used_or_said_to_be_taken() -> Outcome {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let refused = TestServer::builder().port(port).start().await;
    assert!(
        matches!(refused, Err(Error::PortTaken { port: taken, .. }) if taken == port),
        "{refused:?}"
    );
    drop(taken);
    assert_eq!(TestServer::builder().port(port).start().await?.port(), port);
    Ok(())
}

#[tokio::test]
async fn a_bad_configuration_shows_the_servers_own_words() -> Outcome {
    let error = TestServer::builder()
        .config("max_payload: \"very much\"")
        .start()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Exited { .. }), "{error:?}");
    assert!(
        error.to_string().contains("max_payload") || error.to_string().contains("int64"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn another_version_can_be_asked_for() -> Outcome {
    let server = TestServer::builder().version("2.12.8").start().await?;
    assert_eq!(server.version(), "2.12.8");
    assert_eq!(client(server.url()).await.server_info().version, "2.12.8");
    Ok(())
}
