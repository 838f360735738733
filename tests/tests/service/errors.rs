//! What a caller learns when a call fails.

use nats_service::{CallError, Code, ServiceError, StoreError, nats_service};
use nats_service_tests::Nats;
use nats_service_tests::desk::{self, Act, DeskClient, DeskError, KeeperClient, Task, doing, task};
use std::time::Duration;

/// The keeper's errors, as they were before there was a second one.
#[derive(Debug, PartialEq, ServiceError)]
pub(crate) enum OldError {
    /// With fields.
    #[service_error(code = AlreadyExists, message = "refused: {text}")]
    Refused { text: String, bytes: usize },
}

/// The desk, as an older client knows it.
#[nats_service(subject = "desk")]
pub(crate) trait OldDesk {
    async fn echo(&self, task: Task) -> Result<Task, OldError>;
    async fn never_was(&self, task: Task) -> Result<Task, OldError>;
}

#[tokio::test]
async fn a_typed_error_arrives_with_its_fields() {
    let nats = Nats::start().await;
    let _desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    for text in ["", "plain", "line\r\nbreak \u{0} é 🦀"] {
        match client.echo(doing("a", Act::Fail, text)).await {
            Err(CallError::Service(error)) => {
                let (text, bytes) = (text.to_owned(), text.len());
                assert_eq!(error, DeskError::Refused { text, bytes });
            }
            other => panic!("{other:?}"),
        }
    }
    let error = client.echo(doing("a", Act::Fail, "x")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (Code::AlreadyExists, "refused: x")
    );
}

#[nats_service]
pub(crate) trait Plain {
    #[kv_store(bucket = "plain", key = "plain.<id>", write = "never")]
    async fn look(&self, id: String) -> Result<String, nats_service::Error>;
}

struct Nobody;

impl Plain for Nobody {
    async fn look(&self, id: String) -> Result<String, nats_service::Error> {
        Err(nats_service::Error::not_found(format!("no `{id}`")))
    }
}

#[tokio::test]
async fn a_refusal_is_told_from_the_handlers_error_even_where_both_are_of_one_type() {
    let nats = Nats::start().await;
    let server = nats_service::Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let _plain = server
        .serve(PlainServer::new(Nobody))
        .start()
        .await
        .unwrap();
    let client = PlainClient::new(nats.client.clone());
    match client.look("x".to_owned()).await {
        Err(CallError::Service(error)) => {
            assert_eq!(error, nats_service::Error::not_found("no `x`"))
        }
        other => panic!("{other:?}"),
    }
    match client.look("a.b".to_owned()).await {
        Err(CallError::Remote(error)) => assert_eq!(error.code(), Code::InvalidArgument),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_variant_that_the_client_does_not_know_arrives_with_its_code_and_its_text() {
    let nats = Nats::start().await;
    let _desk = desk::desk(&nats).await;
    let client = OldDeskClient::new(nats.client.clone());
    match client.echo(doing("a", Act::FailNewly, "text")).await {
        Err(CallError::Remote(error)) => {
            assert_eq!(error.code(), Code::FailedPrecondition);
            assert_eq!(error.message(), "new: text");
            assert_eq!(error.details()["text"], "text");
            assert!(error.variant().is_some());
        }
        other => panic!("{other:?}"),
    }
    match client.echo(doing("a", Act::Fail, "x")).await {
        Err(CallError::Service(OldError::Refused { text, bytes })) => {
            assert_eq!((text.as_str(), bytes), ("x", 1))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nobody_there_is_said_at_once_and_names_the_subject() {
    let nats = Nats::start().await;
    let _desk = desk::desk(&nats).await;
    let client = OldDeskClient::new(nats.client.clone()).with_timeout(Duration::from_secs(3600));
    match nats_service_tests::soon("an answer", client.never_was(task("a"))).await {
        Err(ref error @ CallError::NoResponders { ref subject }) => {
            assert_eq!(
                (subject.as_str(), error.code()),
                ("desk.never_was", Code::Unavailable)
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_jetstream_stores_says_what_to_pass_and_calls_work() {
    let nats = Nats::start().await;
    let _keeper = desk::keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone());
    match client.stores() {
        Err(error @ StoreError::NoJetStream) => {
            assert!(error.to_string().contains("with_jetstream"), "{error}");
        }
        other => panic!("{:?}", other.map(drop)),
    }
    assert_eq!(client.keep(task("a")).await.unwrap(), task("a"));
    assert_eq!(client.keep_surely(task("a")).await.unwrap(), task("a"));
}

#[tokio::test]
async fn a_closed_connection_is_an_error_and_not_a_time_out() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let (client, _) = nats_service_tests::connect(&nats.server).await;
    let caller = DeskClient::new(client.clone()).with_timeout(Duration::from_secs(3600));
    let call = caller.echo(doing("a", Act::Hold, ""));
    let call = tokio::spawn(async move { call.await });
    desk.worker.until_running(1).await;
    client.drain().await.unwrap();
    match nats_service_tests::soon("an answer", call).await.unwrap() {
        Err(error @ CallError::Connection(_)) => assert_eq!(error.code(), Code::Unavailable),
        other => panic!("{other:?}"),
    }
    match nats_service_tests::soon("an answer", caller.echo(task("a"))).await {
        Err(CallError::Connection(_)) => {}
        other => panic!("{other:?}"),
    }
}
