//! Streams of answers, of requests, and both: order, ends, errors.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nats_service::{CallError, Code, Codec};
use nats_service_tests::spout::{
    self, Act, Ask, Drop, PackedClient, SpoutClient, SpoutError, doing, spout, to,
};
use nats_service_tests::{Nats, soon};

#[tokio::test]
async fn items_come_in_order_and_each_once() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    for many in [0, 1, 2, 1_000, 100_000] {
        let drops = soon("a stream", client.count(to(many))).await.unwrap();
        let numbers: Vec<u64> = soon("all", drops.map_ok(|drop| drop.number).try_collect())
            .await
            .unwrap();
        assert!(numbers.into_iter().eq(1..=many), "{many}");
    }
    let plain = soon("a stream", client.plain(7, 9_000)).await.unwrap();
    let numbers: Vec<u64> = soon("all", plain.try_collect()).await.unwrap();
    assert!(numbers.into_iter().eq(7..=9_000));
    served.seen.until_running(0).await;
}

#[tokio::test]
async fn a_stream_of_requests_is_answered_once() {
    let nats = Nats::start().await;
    let _served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    for many in [0, 1, 100_000_u64] {
        let sum = soon("a sum", client.sum(3, stream::iter(1..=many))).await;
        assert_eq!(sum.unwrap(), 3 + many * (many + 1) / 2);
    }
    let ended = soon("an error", client.sum(3, stream::iter([1, u64::MAX, 5]))).await;
    match ended {
        Err(CallError::Service(SpoutError::Dry { number: 4 })) => {}
        other => panic!("{other:?}"),
    }
    // The handler may answer before the caller's stream has ended.
    let endless = stream::iter([u64::MAX]).chain(stream::pending());
    let ended = soon("an error", client.sum(3, endless)).await;
    assert_eq!(ended.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn both_sides_stream_at_once() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    let drop = |number| Drop {
        number,
        text: "y".repeat(50),
    };
    let drops = stream::iter((1..=20_000).map(drop));
    let echo = soon("a stream", client.echo(drops, to(0))).await.unwrap();
    let back: Vec<Drop> = soon("all", echo.try_collect()).await.unwrap();
    assert!(back.into_iter().eq((1..=20_000).map(drop)));
    served.seen.until_running(0).await;

    // One by one: nobody waits for more to come.
    let (send, receive) = futures_channel();
    let mut echo = soon("a stream", client.echo(receive, to(0))).await.unwrap();
    for number in 1..=50 {
        send.send(drop(number)).await.unwrap();
        let back = soon("an item", echo.next()).await.unwrap().unwrap();
        assert_eq!(back.number, number);
    }
    std::mem::drop(send);
    assert!(soon("the end", echo.next()).await.is_none());
}

fn futures_channel() -> (
    tokio::sync::mpsc::Sender<Drop>,
    impl futures_util::Stream<Item = Drop> + Send + 'static,
) {
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    (send, stream::poll_fn(move |cx| receive.poll_recv(cx)))
}

#[tokio::test]
async fn streams_speak_the_codec_of_their_service() {
    let nats = Nats::start().await;
    let _served = spout(&nats.server).await;
    let client = PackedClient::new(nats.client.clone());
    let drop = |number| Drop {
        number,
        text: "z".into(),
    };
    let echo = soon("a stream", client.echo(stream::iter((1..=500).map(drop))))
        .await
        .unwrap();
    let back: Vec<Drop> = soon("all", echo.try_collect()).await.unwrap();
    assert_eq!(back.len(), 500);
    let sum = soon("a sum", client.sum(stream::iter(1..=4))).await;
    assert_eq!(sum.unwrap(), 10);
}

#[tokio::test]
async fn streams_speak_the_codec_of_their_client_in_both_directions() {
    let nats = Nats::start().await;
    let _served = spout(&nats.server).await;
    let mut wire = nats.client.subscribe("*.*").await.unwrap();
    let drop = |number| Drop {
        number,
        text: "z".into(),
    };
    let drops = || stream::iter((1..=500).map(drop));
    for codec in [Codec::MessagePack, Codec::Json] {
        // One is the contract's own for each of the two services.
        let spout = SpoutClient::new(nats.client.clone()).with_codec(codec);
        let echo = soon("a stream", spout.echo(drops(), to(0))).await.unwrap();
        let back: Vec<Drop> = soon("all", echo.try_collect()).await.unwrap();
        assert!(back.into_iter().eq((1..=500).map(drop)), "{codec:?}");
        let sum = soon("a sum", spout.sum(3, stream::iter(1..=4))).await;
        assert_eq!(sum.unwrap(), 13, "{codec:?}");
        match soon("an error", spout.sum(3, stream::iter([u64::MAX]))).await {
            Err(CallError::Service(SpoutError::Dry { number: 3 })) => {}
            other => panic!("{other:?}"),
        }
        let plain = soon("a stream", spout.plain(1, 3)).await.unwrap();
        let plain: Vec<u64> = soon("all", plain.try_collect()).await.unwrap();
        assert_eq!(plain, [1, 2, 3]);
        let packed = PackedClient::new(nats.client.clone()).with_codec(codec);
        let echo = soon("a stream", packed.echo(drops())).await.unwrap();
        assert_eq!(soon("all", echo.count()).await, 500);
        let sum = soon("a sum", packed.sum(stream::iter(1..=4))).await;
        assert_eq!(sum.unwrap(), 10, "{codec:?}");
        // The requests say so.
        for _ in 0..6 {
            let opened = soon("a request", wire.next()).await.unwrap();
            let said = opened.headers.as_ref().unwrap().get("Content-Type");
            let said = said.map_or("application/json", |said| said.as_str());
            assert_eq!(said, codec.content_type(), "{}", opened.subject);
        }
    }
}

#[tokio::test]
async fn items_are_what_their_caller_accepts() {
    let nats = Nats::start().await;
    let _served = spout(&nats.server).await;
    let accept = Codec::MessagePack.content_type();
    let client = SpoutClient::new(nats.client.clone())
        .with_header("Accept", accept)
        .unwrap();
    let plain = soon("a stream", client.plain(1, 3)).await.unwrap();
    let said = plain.headers().get("Content-Type");
    assert_eq!(said.map(|said| said.as_str()), Some(accept));
    let plain: Vec<u64> = soon("all", plain.try_collect()).await.unwrap();
    assert_eq!(plain, [1, 2, 3]);
    let sum = soon("a sum", client.sum(3, stream::iter(1..=4))).await;
    assert_eq!(sum.unwrap(), 13);
}

#[tokio::test]
async fn an_error_before_the_first_item_is_the_calls_and_one_after_it_ends_the_stream() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    let refused = soon("an answer", client.count(doing(5, Act::Refuse))).await;
    match refused {
        Err(CallError::Service(error)) => assert_eq!(error, SpoutError::Dry { number: 0 }),
        other => panic!("{other:?}"),
    }
    let nothing = stream::pending();
    let refused = soon("an answer", client.echo(nothing, doing(0, Act::Refuse))).await;
    match refused {
        Err(CallError::Service(error)) => assert_eq!(error, SpoutError::Dry { number: 0 }),
        other => panic!("{other:?}"),
    }

    let mut drops = soon("a stream", client.count(doing(5_000, Act::Fail)))
        .await
        .unwrap();
    for number in 1..=5_000 {
        let drop = soon("an item", drops.next()).await.unwrap().unwrap();
        assert_eq!(drop.number, number);
    }
    match soon("an error", drops.next()).await {
        Some(Err(CallError::Service(error))) => {
            assert_eq!(error, SpoutError::Dry { number: 5_000 });
        }
        other => panic!("{other:?}"),
    }
    assert!(soon("the end", drops.next()).await.is_none());
    served.seen.until_running(0).await;
}

#[tokio::test]
async fn a_panic_in_a_stream_is_an_internal_error_and_the_endpoint_lives() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    let mut drops = soon("a stream", client.count(doing(3, Act::Panic)))
        .await
        .unwrap();
    let error = loop {
        match soon("an item", drops.next()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("it ended well"),
        }
    };
    assert_eq!(error.code(), Code::Internal);
    assert!(!error.to_string().contains("secret"), "{error}");
    served.seen.until_running(0).await;
    let drops = soon("a stream", client.count(to(3))).await.unwrap();
    assert_eq!(soon("all", drops.count()).await, 3);

    // The caller's own stream may panic, too.
    let panics = stream::iter([1]).chain(stream::poll_fn(|_| panic!("ours")));
    let ended = soon("an error", client.sum(0, panics)).await;
    assert_eq!(ended.unwrap_err().code(), Code::Internal);
    served.seen.until_running(0).await;
}

#[tokio::test]
async fn an_item_over_the_maximum_payload_is_an_error_that_names_its_size() {
    let nats = Nats::start().await;
    let _served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    let large = 2 << 20;
    let mut drops = soon("a stream", client.count(doing(3, Act::Grow(large))))
        .await
        .unwrap();
    for _ in 0..3 {
        soon("an item", drops.next()).await.unwrap().unwrap();
    }
    match soon("an error", drops.next()).await {
        Some(Err(CallError::Remote(error))) => {
            assert_eq!(error.code(), Code::ResourceExhausted);
            assert!(error.message().contains("2097"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let drop = Drop {
        number: 1,
        text: "x".repeat(large),
    };
    let mut echo = soon("a stream", client.echo(stream::iter([drop]), to(0)))
        .await
        .unwrap();
    match soon("an error", echo.next()).await {
        Some(Err(CallError::TooLarge { size, .. })) => assert!(size > large),
        other => panic!("{other:?}"),
    }
    // Up to that, it may be larger than the window.
    let ask = Ask {
        to: 5,
        bytes: 900_000,
        ..Ask::default()
    };
    let drops = soon("a stream", client.count(ask).window(1, 1))
        .await
        .unwrap();
    assert_eq!(soon("all", drops.count()).await, 5);
}

#[tokio::test]
async fn a_handler_that_does_not_begin_in_time_is_stopped_and_a_long_stream_is_not() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    let late = soon(
        "an answer",
        client.late().timeout(nats_service_tests::PATIENCE),
    )
    .await;
    assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
    served.seen.until_running(0).await;
}

#[tokio::test]
async fn requests_that_cannot_be_decoded_end_the_call_with_a_reason() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    // Another contract on the same subject, whose items are no numbers.
    let wrong = wrong::SpoutClient::new(nats.client.clone());
    let items = stream::iter(["seven".to_owned()]).chain(stream::pending());
    let error = soon("an error", wrong.sum(0, items)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.to_string().contains("item"), "{error}");
    served.seen.until_running(0).await;
    // And of answers.
    let mut texts = soon("a stream", wrong.plain(1, 3)).await.unwrap();
    match soon("an error", texts.next()).await {
        Some(Err(CallError::Decode(_))) => {}
        other => panic!("{other:?}"),
    }
    assert!(soon("the end", texts.next()).await.is_none());
}

mod wrong {
    use futures_util::Stream;
    use nats_service::nats_service;

    #[nats_service]
    pub(super) trait Spout {
        async fn sum(&self, start: u64, numbers: impl Stream<Item = String> + Send) -> u64;
        async fn plain(&self, from: u64, to: u64) -> impl Stream<Item = String> + Send;
    }
}

#[tokio::test]
async fn an_ordinary_call_of_a_streaming_method_and_the_other_way_round_are_clear_errors() {
    let nats = Nats::start().await;
    let _served = spout(&nats.server).await;
    let ask = serde_json::to_vec(&to(3)).unwrap();
    let reply = nats_service_tests::desk::ask(&nats.client, "spout.count", ask).await;
    let (number, text, _) = nats_service_tests::desk::refusal(&reply);
    assert_eq!(number, 400);
    assert!(text.contains("Nats-Service-Stream"), "{text}");

    let confused = confused::SpoutClient::new(nats.client.clone());
    match soon("an error", confused.unary(3)).await {
        Err(error @ CallError::Broken { .. }) => {
            assert!(error.to_string().contains("answered once"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    match soon("an error", confused.nobody()).await {
        Err(CallError::NoResponders { .. }) => {}
        other => panic!("{other:?}"),
    }
}

mod confused {
    use futures_util::Stream;
    use nats_service::nats_service;

    #[nats_service]
    pub(super) trait Spout {
        async fn unary(&self, number: u64) -> impl Stream<Item = u64> + Send;
        async fn nobody(&self) -> impl Stream<Item = u64> + Send;
    }
}

#[tokio::test]
async fn discovery_says_what_streams_and_counts_a_stream_as_one_request() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let client = SpoutClient::new(nats.client.clone());
    let drops = soon("a stream", client.count(to(10))).await.unwrap();
    assert_eq!(soon("all", drops.count()).await, 10);
    let mut open = soon("a stream", client.count(doing(5, Act::Stay)))
        .await
        .unwrap();
    for _ in 0..5 {
        soon("an item", open.next()).await.unwrap().unwrap();
    }
    nats_service_tests::until("it is counted", async || {
        let stats = nats_service_tests::desk::stats(&nats.client, "spout", "count").await;
        let data = &stats["data"]["streams"];
        stats["num_requests"] == 1
            && data["num_open"] == 1
            && data["num_items_sent"] == 15
            && data["num_items_received"] == 0
    })
    .await;
    let info = nats_service_tests::desk::ask(&nats.client, "$SRV.INFO.spout", "").await;
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    let says = |name: &str| {
        let endpoints = info["endpoints"].as_array().unwrap();
        let one = endpoints.iter().find(|one| one["name"] == name).unwrap();
        one["metadata"]["nats-service-stream"].clone()
    };
    assert_eq!(says("count"), "answers");
    assert_eq!(says("sum"), "requests");
    assert_eq!(says("echo"), "both");
    assert!(says("unary").is_null());
    drop(open);
    served.seen.until_running(0).await;
    let _ = spout::BEAT;
}
