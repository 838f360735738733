//! The wire form, spoken by hand: what `docs/guide/streaming.md` says is enough to call and to serve.

use async_nats::{HeaderMap, Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use nats_service::{CallError, Code, StreamBreak};
use nats_service_tests::spout::{Act, BEAT, SpoutClient, doing, spout};
use nats_service_tests::{Nats, PATIENCE, processed, soon};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// What the header says.
fn said(message: &Message) -> String {
    let headers = message.headers.as_ref().expect("headers");
    let value = headers.get("Nats-Service-Stream").expect("a frame");
    value.as_str().to_owned()
}

/// A number that it says.
fn number(said: &str, name: &str) -> u64 {
    let mut pairs = said.split(' ').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(it, _)| *it == name);
    found.expect("a number").1.parse().expect("a number")
}

struct Hand<'n> {
    nats: &'n Nats,
    inbox: Subscriber,
    own: String,
}

impl<'n> Hand<'n> {
    async fn new(nats: &'n Nats, subject: &str) -> Self {
        let inbox = nats.client.subscribe(subject.to_owned()).await.unwrap();
        processed(&nats.client).await;
        Self {
            nats,
            inbox,
            own: subject.to_owned(),
        }
    }

    async fn hear(&mut self) -> Message {
        soon("a message", self.inbox.next()).await.unwrap()
    }

    /// The next message that is no sign of life.
    async fn frame(&mut self) -> Message {
        loop {
            let message = self.hear().await;
            if !said(&message).starts_with("state") {
                return message;
            }
        }
    }

    async fn say(&self, to: &Subject, frame: &str, body: impl Into<Bytes>) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Service-Stream", frame);
        let (client, own) = (&self.nats.client, self.own.clone());
        let sent = client.publish_with_reply_and_headers(to.clone(), own, headers, body.into());
        sent.await.unwrap();
    }
}

/// The items of a body.
fn items(message: &Message) -> Vec<serde_json::Value> {
    let said = said(message);
    let mut body = &message.payload[..];
    if !said.contains("count=") {
        return vec![serde_json::from_slice(body).unwrap()];
    }
    let mut items = Vec::new();
    for _ in 0..number(&said, "count") {
        let (length, rest) = body.split_first_chunk::<4>().unwrap();
        let (item, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        items.push(serde_json::from_slice(item).unwrap());
        body = rest;
    }
    assert!(body.is_empty());
    items
}

#[tokio::test]
async fn a_caller_without_this_crate_reads_a_stream() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let mut hand = Hand::new(&nats, "_INBOX.by.hand").await;
    let ask = serde_json::to_vec(&doing(25, Act::Fail)).unwrap();
    let open = "open items=10 bytes=100000 beat=1000";
    hand.say(&"spout.count".into(), open, ask).await;
    let welcome = hand.frame().await;
    assert!(said(&welcome).starts_with("open "), "{}", said(&welcome));
    let control = welcome.reply.clone().expect("where to speak");
    let mut numbers = Vec::new();
    for seq in 1.. {
        let frame = hand.frame().await;
        let text = said(&frame);
        assert_eq!(number(&text, "seq"), seq, "{text}");
        if text.starts_with("error") {
            let (code, error, _) = nats_service_tests::desk::refusal(&frame);
            assert_eq!((code, error.as_str()), (416, "dry after 25"));
            hand.say(&control, &format!("state ack={seq}"), "").await;
            break;
        }
        let items = items(&frame);
        numbers.extend(items.iter().map(|item| item["number"].as_u64().unwrap()));
        let allowed = numbers.len() + 10;
        let state = format!("state ack={seq} items={allowed} bytes=100000");
        hand.say(&control, &state, "").await;
    }
    assert!(numbers.into_iter().eq(1..=25));
    served.seen.until_running(0).await;

    // It need not read to the end.
    let ask = serde_json::to_vec(&doing(5, Act::Stay)).unwrap();
    hand.say(&"spout.count".into(), "open", ask).await;
    let welcome = hand.frame().await;
    served.seen.until_running(1).await;
    hand.say(&welcome.reply.unwrap(), "cancel", "").await;
    served.seen.until_running(0).await;
}

#[tokio::test]
async fn a_caller_without_this_crate_sends_a_stream() {
    let nats = Nats::start().await;
    let _served = spout(&nats.server).await;
    let mut hand = Hand::new(&nats, "_INBOX.by.hand").await;
    hand.say(&"spout.sum".into(), "open", "100").await;
    let welcome = hand.frame().await;
    let control = welcome.reply.clone().expect("where to speak");
    assert!(number(&said(&welcome), "items") >= 3);
    hand.say(&control, "items seq=1", "1").await;
    let two = b"\0\0\0\x012\0\0\0\x013".to_vec();
    hand.say(&control, "items seq=2 count=2", two).await;
    hand.say(&control, "end seq=3", "").await;
    let answer = hand.frame().await;
    assert!(said(&answer).starts_with("end seq=1"), "{}", said(&answer));
    assert_eq!(&answer.payload[..], b"106");
}

/// Serves one stream of `spout.plain` by hand, up to where it is open.
async fn serve(nats: &Nats) -> (Hand<'_>, Subject) {
    let mut requests = Hand::new(nats, "spout.plain").await;
    let request = requests.hear().await;
    assert!(said(&request).starts_with("open "));
    let hand = Hand::new(nats, "_INBOX.by.hand").await;
    let caller = request.reply.expect("a reply subject");
    hand.say(&caller, "open from=7", "").await;
    (hand, caller)
}

#[tokio::test]
async fn a_frame_that_is_lost_is_asked_for_and_comes_again() {
    let nats = Nats::start().await;
    let client = SpoutClient::new(nats.client.clone());
    let (served, opened) = tokio::join!(serve(&nats), client.plain(1, 3).heartbeat(BEAT));
    let ((mut hand, caller), mut numbers) = (served, opened.unwrap());
    hand.say(&caller, "items seq=1 from=7", "1").await;
    hand.say(&caller, "items seq=3 from=7", "3").await;
    let asks = loop {
        let state = said(&hand.hear().await);
        if state.contains("resend=1") {
            break state;
        }
    };
    assert_eq!(number(&asks, "ack"), 1);
    hand.say(&caller, "items seq=2 from=7", "2").await;
    hand.say(&caller, "items seq=3 from=7", "3").await;
    hand.say(&caller, "items seq=3 from=7", "3").await;
    // The last one is missed because of what the sender says that it sent.
    hand.say(&caller, "state sent=4 from=7", "").await;
    loop {
        let state = said(&hand.hear().await);
        if state.contains("resend=1") && number(&state, "ack") == 3 {
            break;
        }
    }
    hand.say(&caller, "end seq=4 from=7", "").await;
    for expected in 1..=3 {
        let number = soon("a number", numbers.next()).await.unwrap();
        assert_eq!(number.unwrap(), expected);
    }
    assert!(soon("the end", numbers.next()).await.is_none());
}

#[tokio::test]
async fn a_frame_that_never_comes_again_is_an_error_and_never_left_out() {
    let nats = Nats::start().await;
    let client = SpoutClient::new(nats.client.clone());
    let (served, opened) = tokio::join!(serve(&nats), client.plain(1, 3).heartbeat(BEAT));
    let ((hand, caller), mut numbers) = (served, opened.unwrap());
    hand.say(&caller, "items seq=1 from=7", "1").await;
    let speaks = async {
        loop {
            hand.say(&caller, "items seq=3 from=7", "3").await;
            tokio::time::sleep(BEAT).await;
        }
    };
    let reads = async {
        let one = soon("a number", numbers.next()).await.unwrap().unwrap();
        assert_eq!(one, 1);
        match soon("an error", numbers.next()).await {
            Some(Err(error)) => {
                assert_eq!(error.code(), Code::DataLoss);
                match error {
                    CallError::Broken {
                        why: StreamBreak::Gap { after: 1, .. },
                        ..
                    } => {}
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    };
    tokio::select! {
        () = speaks => {}
        () = reads => {}
    }
}

#[tokio::test]
async fn what_a_stranger_says_changes_nothing() {
    let nats = Nats::start().await;
    let client = SpoutClient::new(nats.client.clone());
    let (served, opened) = tokio::join!(serve(&nats), client.plain(1, 3).heartbeat(BEAT));
    let ((hand, caller), mut numbers) = (served, opened.unwrap());
    for frame in [
        "items seq=1",
        "items seq=1 from=8",
        "end seq=1 from=8",
        "error seq=1",
        "cancel from=9",
        "state ack=99 from=8",
        "open from=9",
        "garbage",
        "items seq=x",
        "",
    ] {
        hand.say(&caller, frame, "666").await;
    }
    let sent = nats.client.publish(caller.clone(), "no frame".into()).await;
    sent.unwrap();
    hand.say(&caller, "items seq=1 from=7", "1").await;
    hand.say(&caller, "end seq=2 from=7", "").await;
    let number = soon("a number", numbers.next()).await.unwrap();
    assert_eq!(number.unwrap(), 1);
    assert!(soon("the end", numbers.next()).await.is_none());

    // And where a service listens: frames out of nowhere, and for nobody.
    drop(hand);
    let served = spout(&nats.server).await;
    let mut hand = Hand::new(&nats, "_INBOX.by.other").await;
    hand.say(&"spout.sum".into(), "open", "100").await;
    let control = hand.frame().await.reply.expect("where to speak");
    for frame in [
        "garbage",
        "items seq=0",
        "state ack=7",
        "items seq=9",
        "open",
    ] {
        hand.say(&control, frame, "666").await;
    }
    hand.say(&control, "items seq=1", "1").await;
    hand.say(&control, "end seq=2", "").await;
    let answer = hand.frame().await;
    assert_eq!(&answer.payload[..], b"101");
    hand.say(&control, "state ack=1", "").await;
    served.seen.until_running(0).await;
    // A stream that is not there: whoever speaks to it is told.
    let nobody = format!("{}x", &control[..control.len() - 1]);
    hand.say(&nobody.into(), "state ack=0", "").await;
    assert_eq!(said(&hand.frame().await), "cancel");
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told_off() {
    let nats = Nats::start().await;
    let client = SpoutClient::new(nats.client.clone());
    for (frame, body) in [
        ("items seq=1 count=3 from=7", "short"),
        ("items seq=1 count=2 from=7", "\0\0\0\x011\0\0\0\x012"),
    ] {
        let call = client.plain(1, 3).window(1, 1 << 20).heartbeat(BEAT);
        let (served, opened) = tokio::join!(serve(&nats), call);
        let ((mut hand, caller), mut numbers) = (served, opened.unwrap());
        hand.say(&caller, frame, body).await;
        match soon("an error", numbers.next()).await {
            Some(Err(CallError::Broken {
                why: StreamBreak::Malformed { .. },
                ..
            })) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(said(&hand.frame().await), "cancel");
    }
}

#[tokio::test]
async fn of_several_instances_that_hear_a_request_one_is_taken() {
    let nats = Nats::start().await;
    let (first, second) = (serve_all(&nats.server).await, serve_all(&nats.server).await);
    let client = SpoutClient::new(nats.client.clone());
    for _ in 0..10 {
        let drops = soon("a stream", client.plain(1, 5_000)).await.unwrap();
        let numbers: Vec<_> = soon("all", drops.map(Result::unwrap).collect()).await;
        assert!(numbers.into_iter().eq(1..=5_000));
        let sum = soon("a sum", client.sum(0, stream::iter(1..=100))).await;
        assert_eq!(sum.unwrap(), 5_050);
    }
    first.seen.until_running(0).await;
    second.seen.until_running(0).await;
}

async fn serve_all(server: &nats_service_testkit::TestServer) -> nats_service_tests::spout::Served {
    nats_service_tests::spout::spout_with(server, nats_service::Server::no_queue_group).await
}

/// Streams of callers that say something which is no frame, or one that cannot be, and then nothing more.
async fn speak_garbage(nats: &Nats, beat: Duration) -> usize {
    let mut hand = Hand::new(nats, "_INBOX.by.hand").await;
    let staying = serde_json::to_vec(&doing(5, Act::Stay)).unwrap();
    let frames: [(&str, &[u8]); 12] = [
        ("garbage", b"x"),
        ("items seq=x", b"1"),
        ("items seq=18446744073709551615", b"1"),
        ("items seq=1 count=18446744073709551615", b"1"),
        ("items seq=1 count=2", b"\0\0\0\x01"),
        ("items seq=1", b"\xff{"),
        ("items seq=2", b"1"),
        ("end seq=7", b""),
        ("end seq=1", b"\0"),
        ("error seq=1", b""),
        ("state ack=99 sent=99 items=0 bytes=0 resend=1", b""),
        ("open items=1 bytes=1 beat=60000", b""),
    ];
    let methods = [("sum", &b"0"[..]), ("echo", b"{}"), ("count", &staying)];
    for (method, ask) in methods {
        for (frame, body) in frames {
            let open = format!("open items=1 bytes=1 beat={}", beat.as_millis());
            let subject = format!("spout.{method}").into();
            hand.say(&subject, &open, ask.to_vec()).await;
            let control = loop {
                let message = hand.hear().await;
                if said(&message).starts_with("open ") {
                    break message.reply.expect("where to speak");
                }
            };
            hand.say(&control, frame, body).await;
        }
    }
    processed(&nats.client).await;
    frames.len() * methods.len()
}

#[tokio::test]
async fn a_caller_that_speaks_garbage_holds_its_stream_no_longer_than_a_silent_one() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    speak_garbage(&nats, Duration::from_millis(50)).await;
    let report = soon("the shutdown", served.running.shutdown(PATIENCE)).await;
    assert_eq!(report.expect("nothing is left").cut_streams, 0);
    assert_eq!(served.seen.running.load(SeqCst), 0);
}

#[tokio::test]
async fn no_stream_of_a_caller_that_speaks_garbage_outlives_the_report_of_a_shutdown() {
    let nats = Nats::start().await;
    let served = spout(&nats.server).await;
    let opened = speak_garbage(&nats, PATIENCE).await;
    let shutdown = served.running.shutdown(Duration::from_millis(100)).await;
    // Those that broke the protocol have ended at once, and the others wait for callers that count as alive for long.
    let cut = shutdown.expect_err("some are left").0.cut_streams;
    assert!((1..opened).contains(&cut), "{cut} of {opened}");
    assert_eq!(served.seen.running.load(SeqCst), 0);
}
