//! What may not stand in a key is refused before the handler runs, with the field and the rule.

use nats_service::Code;
use nats_service_tests::Nats;
use nats_service_tests::desk::{self, ask, beside_a_hundred, refusal, task};
use std::sync::atomic::Ordering::SeqCst;

#[tokio::test]
async fn a_capture_that_is_not_one_token_is_refused_with_its_field_and_its_rule() {
    let nats = Nats::start().await;
    let desk = desk::desk(&nats).await;
    let keeper = desk::keeper(&nats).await;
    let long = "x".repeat(1024);
    let cases = [
        ("", "empty"),
        ("a.b", "dot"),
        (".", "dot"),
        ("*", "wildcard"),
        (">", "wildcard"),
        ("a>", "wildcard"),
        ("a b", "white space"),
        (" ", "white space"),
        ("a\nb", "white space"),
        ("a\r\nPUB $KV.kept.victim 1\r\nx\r\n", "white space"),
        ("a\tb", "white space"),
        ("a\0b", "character"),
        ("é", "character"),
        ("日本", "character"),
        ("a$b", "character"),
        (long.as_str(), "1024 bytes"),
    ];
    let methods = ["keep", "keep_surely", "keep_not", "forget", "render"];
    beside_a_hundred(&nats.client, &desk.worker, async || {
        for method in methods {
            for (id, rule) in cases {
                let body = serde_json::to_vec(&task(id)).unwrap();
                let reply = ask(&nats.client, &format!("keeper.{method}"), body).await;
                let (number, header, error) = refusal(&reply);
                assert_eq!(
                    (number, error.code()),
                    (400, Code::InvalidArgument),
                    "{id:?}"
                );
                assert!(header.contains("`id`"), "{header}");
                assert!(error.message().contains(rule), "{id:?}: {error}");
                assert_eq!(error.details()["field"], "id");
                let said = error.details()["rule"].as_str().unwrap();
                assert!(said.contains(rule), "{id:?}: {said}");
            }
        }
    })
    .await;
    assert_eq!(keeper.worker.begun(), 0);
    for (stream, filter) in [("KV_kept", ">"), ("KV_sure", ">"), ("OBJ_large", ">")] {
        assert_eq!(nats.messages(stream, filter).await, 0, "{stream}");
    }
}

#[tokio::test]
async fn the_longest_key_that_is_allowed_is_stored_and_the_connection_lives() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let id = "x".repeat(1024 - "task.".len());
    let body = serde_json::to_vec(&task(&id)).unwrap();
    for method in ["keep", "keep_surely", "render", "forget"] {
        let reply = ask(&nats.client, &format!("keeper.{method}"), body.clone()).await;
        let failed = reply
            .headers
            .and_then(|headers| headers.get("Nats-Service-Error").cloned());
        assert_eq!(failed, None, "{method}");
    }
    assert_eq!(keeper.worker.begun.load(SeqCst), 4);
    let report = keeper
        .running
        .shutdown(nats_service_tests::PATIENCE)
        .await
        .unwrap();
    assert!(report.unwritten.is_empty());
    assert_eq!(nats.messages("KV_sure", ">").await, 1);
}
