//! What a start makes of the buckets, and what keeps it from starting.

use async_nats::jetstream::{kv, stream};
use nats_service::{ProvisionError, Running, Server, StartError, nats_service};
use nats_service_tests::Nats;
use nats_service_tests::desk::{self, DeskServer, Hand, KeeperServer, Worker};
use std::time::Duration;

struct Nothing;

macro_rules! contracts {
    ($($name:ident($($option:tt)*);)+) => {$(
        #[nats_service(subject = "b")]
        trait $name {
            #[kv_store(bucket = "b", key = "a", history = 9, $($option)*)]
            async fn save(&self) -> u32;
        }
        impl $name for Nothing {
            async fn save(&self) -> u32 {
                7
            }
        }
    )+};
}
contracts! {
    Create();
    Warn(provision = "warn");
    Update(provision = "update", ttl = "1h");
    Bind(provision = "none");
}

async fn existing(nats: &Nats) {
    let config = kv::Config {
        bucket: "b".to_owned(),
        history: 3,
        description: "an operator's".to_owned(),
        max_bytes: 1 << 20,
        ..Default::default()
    };
    nats.js.create_key_value(config).await.unwrap();
}

async fn settings(nats: &Nats) -> stream::Config {
    let stream = nats.js.get_stream("KV_b").await.unwrap();
    stream.cached_info().config.clone()
}

fn server(nats: &Nats) -> Server {
    Server::new(nats.client.clone()).with_jetstream(nats.js.clone())
}

async fn start(server: Server) -> Result<Running, StartError> {
    nats_service_tests::soon("a start", server.start()).await
}

#[tokio::test]
async fn a_start_makes_the_buckets_as_their_attributes_say() {
    let nats = Nats::start().await;
    let _keeper = desk::keeper(&nats).await;
    let names = ["KV_kept", "KV_sure", "KV_unkept", "OBJ_large"];
    for name in names {
        nats.js.get_stream(name).await.expect(name);
    }
    let kept = nats.js.get_stream("KV_kept").await.unwrap();
    assert_eq!(kept.cached_info().config.max_messages_per_subject, 64);
    // A second instance finds them as it wants them.
    let _second = desk::keeper(&nats).await;
}

#[tokio::test]
async fn a_bucket_that_differs_keeps_the_service_from_starting_and_is_left_alone() {
    let nats = Nats::start().await;
    existing(&nats).await;
    let before = settings(&nats).await;
    let error = start(server(&nats).serve(CreateServer::new(Nothing)))
        .await
        .unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    for word in [
        "`b`",
        "history",
        "3",
        "9",
        "provision = \"update\"",
        "\"warn\"",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(
        !text.contains("max_bytes") && !text.contains("description"),
        "{text}"
    );
    assert_eq!(settings(&nats).await, before);
    let asked = nats.client.request("b.save", "".into()).await;
    assert!(asked.unwrap_err().to_string().contains("no responders"));
}

#[tokio::test]
async fn a_difference_may_be_a_warning() {
    let nats = Nats::start().await;
    existing(&nats).await;
    let before = settings(&nats).await;
    let running = start(server(&nats).serve(WarnServer::new(Nothing)))
        .await
        .unwrap();
    assert_eq!(settings(&nats).await, before);
    running.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn an_update_changes_what_is_named_and_nothing_else() {
    let nats = Nats::start().await;
    existing(&nats).await;
    let before = settings(&nats).await;
    let _running = start(server(&nats).serve(UpdateServer::new(Nothing)))
        .await
        .unwrap();
    let after = settings(&nats).await;
    assert_eq!(
        (after.max_messages_per_subject, after.max_age),
        (9, Duration::from_secs(3600))
    );
    let mut expected = before;
    expected.max_messages_per_subject = 9;
    expected.max_age = Duration::from_secs(3600);
    assert_eq!(after, expected);
}

#[tokio::test]
async fn binding_makes_no_bucket_and_looks_at_no_difference() {
    let nats = Nats::start().await;
    match start(server(&nats).serve(BindServer::new(Nothing))).await {
        Err(StartError::Provision(error @ ProvisionError::Missing { .. })) => {
            assert!(error.to_string().contains("KV_b"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(nats.js.get_stream("KV_b").await.is_err());
    existing(&nats).await;
    let _running = start(server(&nats).serve(BindServer::new(Nothing)))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_cannot_work_is_said_at_start() {
    let nats = Nats::start().await;
    let worker = Hand(Worker::new());
    let bare = || Server::new(nats.client.clone());
    assert!(matches!(start(bare()).await, Err(StartError::NoService)));
    // `keep_surely` promises what nobody can hold without JetStream.
    match start(bare().serve(KeeperServer::new(worker.clone()))).await {
        Err(error @ StartError::NoJetStream { subject }) => {
            assert_eq!(subject, "keeper.keep_surely");
            assert!(error.to_string().contains("with_jetstream"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let twice = bare()
        .serve(DeskServer::new(worker.clone()))
        .serve(DeskServer::new(worker));
    match start(twice).await {
        Err(StartError::SubjectTaken { subject }) => assert_eq!(subject, "desk.echo"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_jetstream_in_the_server_the_start_says_so() {
    let nats = Nats::start_with(|server| server.jetstream(false)).await;
    match start(server(&nats).serve(CreateServer::new(Nothing))).await {
        Err(StartError::Provision(error @ ProvisionError::NoJetStream { .. })) => {
            assert!(error.to_string().contains("nats-server -js"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // A service that can do without does so.
    let bare = Server::new(nats.client.clone()).serve(CreateServer::new(Nothing));
    let _running = start(bare).await.unwrap();
    assert_eq!(
        CreateClient::new(nats.client.clone()).save().await.unwrap(),
        7
    );
}
