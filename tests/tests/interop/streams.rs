//! Streams with another language that knows only the description of them, `docs/guide/streaming.md`: it reads ours, and ours
//! reads its. There is one such peer, in Python.

use crate::{decode, encode};
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{CallError, StreamBreak};
use nats_service_tests::foreign::{Language, Peer};
use nats_service_tests::spout::{
    Act, Ask, BEAT, Served, SpoutClient, SpoutError, doing, spout, to,
};
use nats_service_tests::{Nats, soon, until};
use serde_json::{Value, json};

async fn start() -> (Nats, Peer) {
    let nats = Nats::start().await;
    let peer = Peer::start(Language::Python, nats.server.url()).await;
    (nats, peer)
}

/// Has the peer read a stream of ours.
async fn read(peer: &mut Peer, ask: &Ask, more: Value) -> Value {
    let mut arguments = json!({
        "subject": "spout.count",
        "data": encode(serde_json::to_vec(ask).unwrap()),
        "beat": BEAT.as_millis(),
    });
    for (name, value) in more.as_object().unwrap() {
        arguments[name] = value.clone();
    }
    peer.must("stream_read", arguments).await
}

fn numbers(read: &Value) -> Vec<u64> {
    let items = read["items"].as_array().unwrap().iter();
    let number = |item: &Value| {
        let item: Value = serde_json::from_slice(&decode(item)).unwrap();
        item["number"].as_u64().unwrap()
    };
    items.map(number).collect()
}

#[tokio::test]
async fn their_caller_reads_a_stream_of_ours_to_its_end() {
    let (nats, mut peer) = start().await;
    let Served { seen, .. } = &spout(&nats.server).await;
    for many in [0, 1, 5_000] {
        let all = read(&mut peer, &to(many), json!({})).await;
        assert_eq!(all["ended"], "end");
        assert!(numbers(&all).into_iter().eq(1..=many), "{many}");
        // It has acknowledged the end: the service forgets the stream at once.
        seen.until_running(0).await;
    }
    // Small windows, of items and of bytes.
    let ask = Ask {
        bytes: 100,
        ..to(500)
    };
    for window in [[1, 1], [7, 1 << 20], [1_000, 300]] {
        let all = read(&mut peer, &ask, json!({ "window": window })).await;
        assert!(numbers(&all).into_iter().eq(1..=500), "{window:?}");
    }
}

#[tokio::test]
async fn their_caller_holds_our_handler_up_by_its_credit_and_is_kept_by_its_signs_of_life() {
    let (nats, mut peer) = start().await;
    let Served { seen, .. } = &spout(&nats.server).await;
    // For longer than silence may last, there is nothing but signs of life in both directions.
    let more = json!({ "window": [16, 1 << 20], "rest": 8, "most": 16 });
    let some = read(&mut peer, &to(100_000), more).await;
    assert_eq!(some["unread"], 16);
    assert!(numbers(&some).into_iter().eq(1..=16), "{some}");
    assert!(seen.produced() < 100, "{}", seen.produced());
    // It has said `cancel` then.
    seen.until_running(0).await;
}

#[tokio::test]
async fn their_caller_gets_our_typed_error_before_the_stream_and_in_it() {
    let (nats, mut peer) = start().await;
    let _served = spout(&nats.server).await;
    let dry = |number: u64| {
        json!({
            "code": "416",
            "text": format!("dry after {number}"),
            "body": {
                "code": "OutOfRange",
                "message": format!("dry after {number}"),
                "variant": "Dry",
                "details": { "number": number },
            },
        })
    };
    let refused = read(&mut peer, &doing(3, Act::Refuse), json!({})).await;
    assert_eq!(refused["refused"], dry(0));
    let failed = read(&mut peer, &doing(3, Act::Fail), json!({})).await;
    assert_eq!(numbers(&failed), [1, 2, 3]);
    assert_eq!(
        (&failed["ended"], &failed["error"]),
        (&json!("error"), &dry(3))
    );
}

#[tokio::test]
async fn their_caller_asks_for_what_was_lost_and_gets_it_again() {
    let (nats, mut peer) = start().await;
    let _served = spout(&nats.server).await;
    // One frame each, since only one fits; the last of these is the end.
    let more = json!({ "window": [1, 1 << 20], "lose": [1, 5, 20, 31] });
    let all = read(&mut peer, &to(30), more).await;
    assert_eq!(all["ended"], "end");
    assert!(numbers(&all).into_iter().eq(1..=30), "{all}");
}

/// A spout of theirs, and our client of it.
async fn theirs(nats: &Nats, peer: &mut Peer, lose: Value) -> SpoutClient {
    let serve = json!({ "subject": "spout.count", "lose": lose });
    peer.must("stream_serve", serve).await;
    SpoutClient::new(nats.client.clone())
}

async fn served(peer: &mut Peer, name: &str) -> u64 {
    let served = peer.must("stream_served", json!({})).await;
    served[name].as_u64().unwrap()
}

#[tokio::test]
async fn our_client_reads_a_stream_of_theirs_to_its_end_and_to_its_typed_error() {
    let (nats, mut peer) = start().await;
    let client = theirs(&nats, &mut peer, json!([])).await;
    for many in [0, 1, 5_000] {
        let all = client.count(to(many)).heartbeat(BEAT);
        let all = soon("a stream", all).await.unwrap();
        let all = all.map_ok(|drop| drop.number).try_collect::<Vec<_>>();
        assert!(
            soon("all", all).await.unwrap().into_iter().eq(1..=many),
            "{many}"
        );
    }
    let failing = client.count(doing(3, Act::Fail)).heartbeat(BEAT);
    let mut failing = soon("a stream", failing).await.unwrap();
    for number in 1..=3 {
        let drop = soon("an item", failing.next()).await.unwrap().unwrap();
        assert_eq!(drop.number, number);
    }
    match soon("an error", failing.next()).await {
        Some(Err(CallError::Service(error))) => assert_eq!(error, SpoutError::Dry { number: 3 }),
        other => panic!("{other:?}"),
    }
    // The ends are acknowledged.
    until("none runs", async || {
        served(&mut peer, "running").await == 0
    })
    .await;
    assert_eq!(served(&mut peer, "cancelled").await, 0);
}

#[tokio::test]
async fn our_reader_holds_their_service_up_and_cancels_it_when_it_goes() {
    let (nats, mut peer) = start().await;
    let client = theirs(&nats, &mut peer, json!([])).await;
    let drops = client.count(to(100_000)).window(16, 1 << 20);
    let mut drops = soon("a stream", drops.heartbeat(BEAT)).await.unwrap();
    soon("an item", drops.next()).await.unwrap().unwrap();
    until("the window is full", async || {
        served(&mut peer, "produced").await >= 16
    })
    .await;
    // Longer than silence may last: signs of life keep it, in both directions.
    tokio::time::sleep(BEAT * 7).await;
    let produced = served(&mut peer, "produced").await;
    assert!(produced <= 17, "{produced}");
    for number in 2..=200 {
        let drop = soon("an item", drops.next()).await.unwrap().unwrap();
        assert_eq!(drop.number, number);
    }
    drop(drops);
    until("it was cancelled", async || {
        served(&mut peer, "cancelled").await == 1
    })
    .await;
    assert_eq!(served(&mut peer, "running").await, 0);
}

#[tokio::test]
async fn our_client_asks_their_service_for_what_was_lost_and_misses_one_that_has_died() {
    let (nats, mut peer) = start().await;
    let client = theirs(&nats, &mut peer, json!([1, 5, 31])).await;
    let all = client.count(to(30)).heartbeat(BEAT);
    let all = soon("a stream", all).await.unwrap();
    let all = all.map_ok(|drop| drop.number).try_collect::<Vec<_>>();
    assert!(soon("all", all).await.unwrap().into_iter().eq(1..=30));
    assert!(served(&mut peer, "resent").await >= 3);

    let drops = client.count(to(100)).window(1, 1).heartbeat(BEAT);
    let mut drops = soon("a stream", drops).await.unwrap();
    soon("an item", drops.next()).await.unwrap().unwrap();
    drop(peer);
    loop {
        match soon("an item", drops.next()).await {
            Some(Ok(_)) => {}
            Some(Err(CallError::Broken { why, .. })) => {
                assert!(matches!(why, StreamBreak::Silent { .. }), "{why}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}
