//! `$SRV.PING`, `INFO` and `STATS`, as any other NATS client sees them.

use async_nats::Client;
use futures_util::StreamExt as _;
use nats_service_tests::desk::{self, Act, DeskClient, ask, doing, task};
use nats_service_tests::{Nats, soon};
use serde_json::{Value, json};
use std::collections::HashSet;

async fn one(client: &Client, subject: &str) -> Value {
    let reply = ask(client, subject, "").await;
    serde_json::from_slice(&reply.payload).expect("JSON")
}

/// What so many instances answer.
async fn gather(client: &Client, subject: &str, count: usize) -> Vec<Value> {
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.unwrap();
    client
        .publish_with_reply(subject.to_owned(), inbox, "".into())
        .await
        .unwrap();
    let mut values = Vec::new();
    for _ in 0..count {
        let reply = soon("a reply", replies.next()).await.unwrap();
        values.push(serde_json::from_slice(&reply.payload).unwrap());
    }
    values
}

fn fields(value: &Value) -> HashSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test]
async fn an_instance_answers_on_all_three_forms_of_every_subject_with_the_fields_of_the_record() {
    let nats = Nats::start().await;
    let _desk = desk::desk(&nats).await;
    let ping = one(&nats.client, "$SRV.PING").await;
    let id = ping["id"].as_str().unwrap().to_owned();
    let of_all = [
        ("name", json!("desk")),
        ("id", json!(id)),
        ("version", json!("1.2.3")),
        ("metadata", json!({"team": "blue"})),
    ];
    for verb in ["PING", "INFO", "STATS"] {
        let kind = format!("io.nats.micro.v1.{}_response", verb.to_lowercase());
        for form in [String::new(), ".desk".to_owned(), format!(".desk.{id}")] {
            let value = one(&nats.client, &format!("$SRV.{verb}{form}")).await;
            assert_eq!(value["type"], kind);
            for (field, expected) in &of_all {
                assert_eq!(value[field], *expected, "{verb}{form}");
            }
            let mut expected = HashSet::from(["type", "name", "id", "version", "metadata"]);
            match verb {
                "INFO" => expected.extend(["description", "endpoints"]),
                "STATS" => expected.extend(["started", "endpoints"]),
                _ => {}
            }
            assert_eq!(fields(&value), expected, "{verb}{form}");
        }
    }
}

#[tokio::test]
async fn info_describes_every_endpoint() {
    let nats = Nats::start().await;
    let _desk = desk::desk(&nats).await;
    let info = one(&nats.client, "$SRV.INFO.desk").await;
    assert_eq!(info["description"], "a desk");
    assert_eq!(
        info["endpoints"],
        json!([
            {"name": "echo", "subject": "desk.echo", "queue_group": "q", "metadata": {"cost": "low"}},
            {"name": "other", "subject": "desk.other", "queue_group": "q", "metadata": {}},
            {"name": "hasty", "subject": "desk.hasty", "queue_group": "q", "metadata": {}},
            {"name": "tell_all", "subject": "desk.tell_all", "queue_group": "", "metadata": {}},
        ])
    );
}

#[tokio::test]
async fn every_instance_answers_with_an_id_of_its_own() {
    let nats = Nats::start().await;
    let _instances = (
        desk::desk(&nats).await,
        desk::desk(&nats).await,
        desk::keeper(&nats).await,
    );
    for verb in ["PING", "INFO", "STATS"] {
        let all = gather(&nats.client, &format!("$SRV.{verb}"), 3).await;
        let ids: HashSet<_> = all.iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 3);
        let desks = gather(&nats.client, &format!("$SRV.{verb}.desk"), 2).await;
        for desk in &desks {
            assert_eq!(desk["name"], "desk");
            let id = desk["id"].as_str().unwrap();
            let single = one(&nats.client, &format!("$SRV.{verb}.desk.{id}")).await;
            assert_eq!(single["id"], id);
        }
    }
}

#[tokio::test]
async fn counters_are_right_after_successes_errors_panics_and_bodies_that_cannot_be_read() {
    let nats = Nats::start().await;
    let _desk = desk::desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    let fresh = desk::stats(&nats.client, "desk", "echo").await;
    assert_eq!(
        fields(&fresh),
        HashSet::from([
            "name",
            "subject",
            "queue_group",
            "num_requests",
            "num_errors",
            "last_error",
            "processing_time",
            "average_processing_time",
            "data",
        ])
    );
    for field in [
        "num_requests",
        "num_errors",
        "processing_time",
        "average_processing_time",
    ] {
        assert_eq!(fresh[field], 0, "{field}");
    }
    assert_eq!(fresh["last_error"], "");

    for _ in 0..5 {
        client.echo(task("a")).await.unwrap();
    }
    let mut failures = 0;
    for act in [Act::Fail, Act::Panic, Act::PanicLater] {
        client.echo(doing("a", act, "text")).await.unwrap_err();
        failures += 1;
    }
    ask(&nats.client, "desk.echo", "garbage").await;
    failures += 1;
    // A reply may be here a moment before its count.
    nats_service_tests::until("all are counted", async || {
        let stats = desk::stats(&nats.client, "desk", "echo").await;
        stats["num_requests"] == 5 + failures && stats["num_errors"] == failures
    })
    .await;
    let stats = desk::stats(&nats.client, "desk", "echo").await;
    assert!(
        stats["last_error"].as_str().unwrap().starts_with("400:"),
        "{stats}"
    );
    let (all, average) = (&stats["processing_time"], &stats["average_processing_time"]);
    assert!(all.as_u64().unwrap() > 0, "{stats}");
    assert_eq!(average.as_u64().unwrap(), all.as_u64().unwrap() / 9);
    let started = one(&nats.client, "$SRV.STATS.desk").await["started"].clone();
    let started = started.as_str().unwrap();
    // nats-py reads no other form: a fraction, of six digits at most.
    let (_, fraction) = started.split_once('.').expect("a fraction");
    let digits = fraction.strip_suffix('Z').expect("UTC");
    assert!((1..=6).contains(&digits.len()), "{started}");
    // The other endpoints count for themselves.
    assert_eq!(
        desk::stats(&nats.client, "desk", "other").await["num_requests"],
        0
    );
}
