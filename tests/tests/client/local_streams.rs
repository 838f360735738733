//! Streams of a service in this process: encoded, bounded and ended as through a server, and there is none.

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use nats_service::layer::Request;
use nats_service::{CallError, Code, Codec, Context, nats_service};
use nats_service_tests::spout::{
    Act, Ask, Drop, PackedClient, Seen, SpoutClient, SpoutError, SpoutServer, Well, doing, to,
};
use nats_service_tests::{soon, until};
use std::sync::Arc;
use tower::util::MapRequestLayer;

fn local() -> (SpoutClient, Arc<Seen>) {
    let well = Well::new();
    let seen = Arc::clone(&well.0);
    (SpoutClient::local(well), seen)
}

#[tokio::test]
async fn answers_requests_and_both_stream_in_order() {
    let (client, seen) = local();
    for many in [0, 1, 10_000] {
        let drops = soon("a stream", client.count(to(many))).await.unwrap();
        let numbers = drops.map_ok(|drop| drop.number).try_collect::<Vec<_>>();
        let numbers = soon("all", numbers).await.unwrap();
        assert!(numbers.into_iter().eq(1..=many), "{many}");
        let sum = soon("a sum", client.sum(3, stream::iter(1..=many))).await;
        assert_eq!(sum.unwrap(), 3 + many * (many + 1) / 2);
    }
    let drop = |number| Drop {
        number,
        text: "y".repeat(50),
    };
    let drops = stream::iter((1..=10_000).map(drop));
    let echo = soon("a stream", client.echo(drops, to(0))).await.unwrap();
    let back: Vec<Drop> = soon("all", echo.try_collect()).await.unwrap();
    assert!(back.into_iter().eq((1..=10_000).map(drop)));
    seen.until_running(0).await;
    // Many at once, and calls beside them.
    let all = (1..=50).map(|many| {
        let client = client.clone();
        async move { client.count(to(many)).await.unwrap().count().await }
    });
    let all = soon("all", futures_util::future::join_all(all)).await;
    assert!(all.into_iter().eq(1..=50));
    assert_eq!(soon("an answer", client.unary(7)).await.unwrap(), 7);
}

#[tokio::test]
async fn errors_are_typed_and_a_panic_stays_with_its_service() {
    let (client, seen) = local();
    let refused = soon("an error", client.count(doing(5, Act::Refuse))).await;
    match refused {
        Err(CallError::Service(error)) => assert_eq!(error, SpoutError::Dry { number: 0 }),
        other => panic!("{other:?}"),
    }
    let refused = client.echo(stream::pending(), doing(0, Act::Refuse));
    let refused = soon("an error", refused).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    for (act, code) in [(Act::Fail, Code::OutOfRange), (Act::Panic, Code::Internal)] {
        let all = soon("a stream", client.count(doing(3, act))).await.unwrap();
        let mut all: Vec<_> = soon("all", all.collect()).await;
        let last = all.pop().unwrap().unwrap_err();
        assert_eq!(last.code(), code);
        assert!(!last.to_string().contains("secret"), "{last}");
    }
    let ended = soon("an error", client.sum(3, stream::iter([1, u64::MAX]))).await;
    assert_eq!(ended.unwrap_err().code(), Code::OutOfRange);
    let panics = stream::iter([1]).chain(stream::poll_fn(|_| panic!("ours")));
    let ended = soon("an error", client.sum(0, panics)).await;
    assert_eq!(ended.unwrap_err().code(), Code::Internal);
    let late = soon("an error", client.late()).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    seen.until_running(0).await;
}

#[tokio::test]
async fn a_reader_that_waits_holds_the_handler_up_and_one_that_goes_stops_it() {
    let (client, seen) = local();
    let ask = Ask {
        bytes: 100,
        ..to(100_000)
    };
    let mut drops = soon("a stream", client.count(ask).window(16, 1 << 20))
        .await
        .unwrap();
    soon("an item", drops.next()).await.unwrap().unwrap();
    until("it has run ahead", async || seen.produced() >= 16).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    // The window, what was read, and one that waits to be sent.
    assert!(seen.produced() <= 18, "{}", seen.produced());
    drop(drops);
    seen.until_running(0).await;
    // An item that no message would carry.
    let mut grown = soon("a stream", client.count(doing(0, Act::Grow(2 << 20))))
        .await
        .unwrap();
    let error = soon("an error", grown.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn items_are_really_encoded_in_the_contract_s_codec_or_the_client_s() {
    for codec in [None, Some(Codec::Json)] {
        let mut packed = PackedClient::local(Well::new());
        if let Some(codec) = codec {
            packed = packed.with_codec(codec);
        }
        let drop = Drop {
            number: 7,
            text: "z".into(),
        };
        let echo = packed.echo(stream::iter([drop.clone()]));
        let echo = soon("a stream", echo).await.unwrap();
        let said = echo.headers().get("Content-Type");
        let said = said.map(|said| said.as_str().to_owned());
        assert_eq!(said.is_none(), codec.is_some(), "{said:?}");
        let back: Vec<Drop> = soon("all", echo.try_collect()).await.unwrap();
        assert_eq!(back, [drop]);
    }
}

/// Says who asks.
#[nats_service]
trait Who {
    async fn asks(&self, #[context] ctx: &Context) -> impl Stream<Item = String> + Send;
}

struct Told;

impl Who for Told {
    async fn asks(&self, ctx: &Context) -> impl Stream<Item = String> + Send {
        let name = ctx.header("X-Who").unwrap_or("nobody").to_owned();
        stream::iter([name])
    }
}

#[tokio::test]
async fn headers_and_layers_of_both_sides_are_as_through_a_server() {
    let who = |name: &'static str| {
        MapRequestLayer::new(move |mut request: Request| {
            let before = request.header("X-Who").unwrap_or("-").to_owned();
            request.headers.insert("X-Who", format!("{before}>{name}"));
            request
        })
    };
    let client = WhoClient::local_from(WhoServer::new(Told).layer(who("service")));
    let client = client.with_header("X-Who", "ada").unwrap();
    let client = client.layer(who("client"));
    let names = soon("a stream", client.asks()).await.unwrap();
    let names: Vec<_> = soon("all", names.try_collect()).await.unwrap();
    assert_eq!(names, ["ada>client>service"]);
}

#[tokio::test]
async fn the_service_goes_with_its_last_client_and_its_last_stream() {
    let well = Well::new();
    let seen = Arc::downgrade(&well.0);
    let client = SpoutClient::local_from(SpoutServer::new(well));
    let mut drops = soon("a stream", client.count(doing(5, Act::Stay)))
        .await
        .unwrap();
    drop(client);
    // The stream goes on, and keeps its service.
    for _ in 0..5 {
        soon("an item", drops.next()).await.unwrap().unwrap();
    }
    assert!(seen.upgrade().is_some());
    drop(drops);
    until("the service is gone", async || seen.upgrade().is_none()).await;
}
