//! Answers that are stored as they are produced, and read as they are fetched.

use nats_service::{ByteStream, CallError, Code, Error, Server, StartError, nats_service};
use nats_service_tests::{Nats, soon};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

const SIZE: u64 = 20_000_000;

#[nats_service]
trait Exports {
    #[object_store(bucket = "exports", key = "table.<name>")]
    async fn table(&self, name: String) -> Result<ByteStream, Error>;
}

#[nats_service]
trait Nowhere {
    async fn table(&self, name: String) -> ByteStream;
}

/// Gives zeros, or fails after some of them when the name says so.
struct Zeros;

struct Breaks;

impl AsyncRead for Breaks {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::Error::other("secret of the disk")))
    }
}

impl Exports for Zeros {
    async fn table(&self, name: String) -> Result<ByteStream, Error> {
        let zeros = tokio::io::repeat(0).take(SIZE);
        match name.as_str() {
            "breaks" => Ok(ByteStream::new(zeros.chain(Breaks))),
            "refused" => Err(Error::not_found("no such table")),
            _ => Ok(ByteStream::new(zeros)),
        }
    }
}

impl Nowhere for Zeros {
    async fn table(&self, _name: String) -> ByteStream {
        ByteStream::new(tokio::io::empty())
    }
}

async fn exports(nats: &Nats) -> nats_service::Running {
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    server
        .serve(ExportsServer::new(Zeros))
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_stream_goes_through_the_store_and_is_kept_there() {
    let nats = Nats::start().await;
    let _running = exports(&nats).await;
    let client = ExportsClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let mut table = soon("an answer", client.table("a".to_owned()))
        .await
        .unwrap();
    let mut bytes = Vec::new();
    soon("its bytes", table.read_to_end(&mut bytes))
        .await
        .unwrap();
    assert_eq!(bytes.len() as u64, SIZE);
    let kept = client.stores().unwrap().table().at("a").unwrap();
    assert_eq!(kept.info().await.unwrap().unwrap().size, SIZE);
}

#[tokio::test]
async fn a_stream_that_fails_is_an_error_and_leaves_the_earlier_object() {
    let nats = Nats::start().await;
    let _running = exports(&nats).await;
    let client = ExportsClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let kept = client.stores().unwrap().table().at("breaks").unwrap();
    kept.put_reader(&b"earlier"[..]).await.unwrap();
    match soon("an answer", client.table("breaks".to_owned())).await {
        Err(CallError::Remote(error)) => {
            assert_eq!(error.code(), Code::Internal);
            assert!(!error.message().contains("secret"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(&kept.bytes().await.unwrap().unwrap()[..], b"earlier");
    // One's own errors come as ever, and store nothing.
    let refused = soon("an answer", client.table("refused".to_owned())).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    assert!(
        client
            .stores()
            .unwrap()
            .table()
            .at("refused")
            .unwrap()
            .info()
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_stream_without_a_place_is_refused_at_start() {
    let nats = Nats::start().await;
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let started = server.serve(NowhereServer::new(Zeros)).start().await;
    assert!(matches!(
        started,
        Err(StartError::StreamWithoutObject {
            subject: "nowhere.table"
        })
    ));
    let server = Server::new(nats.client.clone()).serve(ExportsServer::new(Zeros));
    assert!(matches!(
        server.start().await,
        Err(StartError::NoJetStream { .. })
    ));
}
