//! One message never costs more than itself: neither its body nor its headers nor a panic end anything but its own call.

use async_nats::HeaderMap;
use nats_service::{CallError, Code};
use nats_service_tests::desk::{
    self, Act, DeskClient, PackedClient, PackedServer, Worker, ask, ask_with, beside_a_hundred,
    doing, refusal, task,
};
use nats_service_tests::{Nats, soon, until};

#[tokio::test]
async fn a_malformed_body_is_an_invalid_argument_and_never_reaches_the_handler() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let bodies: [&[u8]; 8] = [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"{\"id\":1}",
        b"{\"id\":\"a\"} {}",
        b"null",
        b"{\"id\":\"\\ud800\"}",
        &[b'['; 100_000],
    ];
    beside_a_hundred(&nats.client, &desk.worker, async || {
        for body in bodies {
            let reply = ask(&nats.client, "desk.echo", body).await;
            let (number, text, error) = refusal(&reply);
            assert_eq!((number, error.code()), (400, Code::InvalidArgument));
            assert!(text.contains("desk.echo"), "{text}");
        }
        assert_eq!(desk.worker.begun(), 100);
    })
    .await;
    let stats = desk::stats(&nats.client, "desk", "echo").await;
    assert_eq!(
        (&stats["num_requests"], &stats["num_errors"]),
        (&109.into(), &8.into())
    );
}

#[tokio::test]
async fn an_unknown_content_type_is_refused_and_a_known_one_is_read_whatever_its_case() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let body = serde_json::to_vec(&task("a")).unwrap();
    for strange in ["text/plain", "", "application/x-protobuf", "\u{1f980}"] {
        let headers = [("Content-Type", strange)];
        let reply = ask_with(&nats.client, "desk.echo", &headers, body.clone()).await;
        let (number, text, _) = refusal(&reply);
        assert_eq!(number, 400, "{strange}");
        assert!(text.contains("application/json"), "{text}");
    }
    assert_eq!(desk.worker.begun(), 0);
    for known in ["application/json", "Application/JSON; charset=utf-8"] {
        let headers = [("Content-Type", known), ("Unknown", "header")];
        let reply = ask_with(&nats.client, "desk.echo", &headers, body.clone()).await;
        assert_eq!(reply.headers, None, "{known}");
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_its_text_stays_with_the_operator() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    beside_a_hundred(&nats.client, &desk.worker, async || {
        for act in [Act::Panic, Act::PanicLater] {
            for _ in 0..20 {
                let call = client.echo(doing("a", act.clone(), "the password is 1234"));
                match soon("an answer", call).await {
                    Err(CallError::Remote(error)) => {
                        assert_eq!(error.code(), Code::Internal);
                        let all = serde_json::to_string(&error).unwrap();
                        assert!(!all.contains("1234"), "{all}");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    })
    .await;
    let stats = desk::stats(&nats.client, "desk", "echo").await;
    assert_eq!(stats["num_errors"], 40);
    assert!(!stats.to_string().contains("1234"), "{stats}");
}

#[tokio::test]
async fn an_error_text_with_line_breaks_and_nul_arrives_clean_in_the_header_and_whole_in_the_body()
{
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let text = format!(
        "a\r\nNats-Service-Error-Code: 200\r\n\0\u{85}é{}",
        "x".repeat(2000)
    );
    beside_a_hundred(&nats.client, &desk.worker, async || {
        let body = serde_json::to_vec(&doing("a", Act::Fail, &text)).unwrap();
        let reply = ask(&nats.client, "desk.echo", body).await;
        let (number, header, error) = refusal(&reply);
        assert_eq!(number, 409);
        assert!(header.starts_with("refused: a  Nats-Service-Error-Code: 200   "));
        assert!(header.len() <= 512 && !header.contains(char::is_control));
        assert_eq!(error.message(), format!("refused: {text}"));
    })
    .await;
}

#[tokio::test]
async fn an_error_that_is_larger_than_a_message_is_an_error_reply_all_the_same() {
    let nats = Nats::start_with(|server| server.max_payload(64 * 1024)).await;
    let desk = desk::desk(&nats).await;
    // Line breaks take two bytes each in JSON, so the error is larger than the request that asks for it.
    let text = "\u{1}".repeat(10_000);
    let body = serde_json::to_vec(&doing("a", Act::Fail, &text)).unwrap();
    assert!(body.len() < 64 * 1024);
    let reply = ask(&nats.client, "desk.echo", body).await;
    let headers = reply.headers.expect("headers");
    let number = headers.get("Nats-Service-Error-Code").expect("a number");
    assert_eq!(number.as_str(), "409");
    drop(desk);
}

#[tokio::test]
async fn many_large_or_odd_headers_cost_nothing() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    beside_a_hundred(&nats.client, &desk.worker, async || {
        let mut headers = HeaderMap::new();
        for i in 0..500 {
            headers.append(format!("X-{i}"), "y".repeat(100));
            headers.append("Nats-Service-Error", "mine");
            headers.append("Nats-Expected-Last-Subject-Sequence", "7");
        }
        let body = serde_json::to_vec(&task("a")).unwrap();
        let asked = nats
            .client
            .request_with_headers("desk.echo", headers, body.into());
        let reply = soon("a reply", asked).await.unwrap();
        assert_eq!(reply.headers, None);
    })
    .await;
}

#[tokio::test]
async fn a_service_in_messagepack_refuses_garbage_deep_nesting_and_trailing_bytes() {
    let nats = Nats::start().await;
    let worker = Worker::new();
    let desk = desk::desk_with(&nats, |server| {
        server.serve(PackedServer::new(desk::Hand(worker.clone())))
    })
    .await;
    let good = nats_service::Codec::MessagePack.encode(&task("a")).unwrap();
    let trailing = [&good[..], &good[..]].concat();
    let bodies: [&[u8]; 9] = [
        b"",
        b"\xc1",
        b"{\"id\":\"a\"}",
        &good[..good.len() - 1],
        &trailing,
        &[0x91; 100_000],
        // A string, an array, a map and a binary that claim to be of four gigabytes.
        b"\xdb\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\xc6\xff\xff\xff\xff",
    ];
    beside_a_hundred(&nats.client, &desk.worker, async || {
        for body in bodies {
            let reply = ask(&nats.client, "packed.pack", body.to_vec()).await;
            assert_eq!(refusal(&reply).0, 400, "{body:x?}");
        }
        for body in [
            &[0x91; 100_000][..],
            &[0x81, 0xa1, b'a'].repeat(1000),
            &[0xc1],
        ] {
            let reply = ask(&nats.client, "packed.any", body.to_vec()).await;
            assert_eq!(refusal(&reply).0, 400);
        }
    })
    .await;
    assert_eq!(worker.begun(), 0);
    let client = PackedClient::new(nats.client.clone());
    assert_eq!(client.pack(task("a")).await.unwrap(), task("a"));
    let reply = ask(&nats.client, "packed.pack", good).await;
    let headers = reply.headers.expect("headers");
    assert_eq!(
        headers.get("Content-Type").unwrap().as_str(),
        "application/msgpack"
    );
}

#[tokio::test]
async fn garbage_on_the_discovery_subjects_is_answered_or_ignored_and_nothing_dies() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    beside_a_hundred(&nats.client, &desk.worker, async || {
        for verb in ["PING", "INFO", "STATS"] {
            let plain = format!("$SRV.{verb}");
            // Without a reply subject there is nobody to tell.
            nats.client
                .publish(plain.clone(), "\u{0}{[".into())
                .await
                .unwrap();
            for body in ["\u{0}{[".to_owned(), "x".repeat(100_000)] {
                let reply = ask(&nats.client, &plain, body).await;
                assert!(!reply.payload.is_empty());
            }
            let mut forged = nats.client.subscribe("forged.>").await.unwrap();
            let reply = "forged.discovery";
            nats.client
                .publish_with_reply(plain.clone(), reply, "".into())
                .await
                .unwrap();
            ask(&nats.client, &plain, "").await;
            nats.client.publish("forged.end", "".into()).await.unwrap();
            let first = soon("the end", futures_util::StreamExt::next(&mut forged)).await;
            assert_eq!(first.unwrap().subject.as_str(), "forged.end");
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_over_the_maximum_payload_is_refused_by_the_client_and_nothing_is_sent() {
    let nats = Nats::start_with(|server| server.max_payload(64 * 1024)).await;
    let desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    client.echo(task("a")).await.unwrap();
    let before = nats
        .client
        .statistics()
        .out_messages
        .load(std::sync::atomic::Ordering::SeqCst);
    let huge = doing("a", Act::Answer, &"x".repeat(64 * 1024));
    match client.echo(&huge).await {
        Err(
            ref error @ CallError::TooLarge {
                ref subject,
                size,
                max,
            },
        ) => {
            assert_eq!((subject.as_str(), max), ("desk.echo", 64 * 1024));
            assert!(size > max);
            assert_eq!(error.code(), Code::InvalidArgument);
        }
        other => panic!("{other:?}"),
    }
    let after = nats
        .client
        .statistics()
        .out_messages
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(before, after);
    client.echo(task("a")).await.unwrap();
    assert_eq!(desk.worker.begun(), 2);
}

#[tokio::test]
async fn a_messagepack_body_with_its_headers_over_the_maximum_is_refused_by_the_client_too() {
    let nats = Nats::start_with(|server| server.max_payload(64 * 1024)).await;
    let worker = Worker::new();
    let _desk = desk::desk_with(&nats, |server| {
        server.serve(PackedServer::new(desk::Hand(worker.clone())))
    })
    .await;
    let client = PackedClient::new(nats.client.clone());
    let connects = nats
        .client
        .statistics()
        .connects
        .load(std::sync::atomic::Ordering::SeqCst);
    // The body alone fits by a byte or two; the header that names its type makes it too large for the server.
    let empty =
        nats_service::Codec::MessagePack.encode(&doing("a", Act::Answer, &"x".repeat(60_000)));
    let room = 64 * 1024 - empty.unwrap().len();
    let exact = doing("a", Act::Answer, &"x".repeat(60_000 + room));
    match client.pack(&exact).await {
        Err(CallError::TooLarge { .. }) => {}
        other => panic!("{:?}", other.map(|task| task.text.len())),
    }
    client.pack(task("a")).await.unwrap();
    let now = nats
        .client
        .statistics()
        .connects
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(connects, now);
}

#[tokio::test]
async fn an_answer_over_the_maximum_payload_is_an_error_reply_and_not_a_time_out() {
    let nats = Nats::start_with(|server| server.max_payload(64 * 1024)).await;
    let desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    beside_a_hundred(&nats.client, &desk.worker, async || {
        for bytes in [64 * 1024, 10 << 20] {
            match client.echo(doing("a", Act::Grow(bytes), "")).await {
                Err(CallError::Remote(error)) => {
                    assert_eq!(error.code(), Code::ResourceExhausted);
                    assert!(error.message().contains("65536"), "{error}");
                }
                other => panic!("{:?}", other.map(|task| task.text.len())),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_without_a_reply_subject_is_handled() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    beside_a_hundred(&nats.client, &desk.worker, async || {
        for act in [
            Act::Answer,
            Act::Fail,
            Act::Panic,
            Act::PanicLater,
            Act::Grow(10 << 20),
        ] {
            let body = serde_json::to_vec(&doing("a", act, "")).unwrap();
            nats.client.publish("desk.echo", body.into()).await.unwrap();
        }
        nats.client
            .publish("desk.echo", "garbage".into())
            .await
            .unwrap();
        until("they were handled", async || desk.worker.begun() == 105).await;
    })
    .await;
    until("they are counted", async || {
        let stats = desk::stats(&nats.client, "desk", "echo").await;
        stats["num_requests"] == 107 && stats["num_errors"] == 4
    })
    .await;
}
