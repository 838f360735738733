//! `$SRV.PING`, `INFO` and `STATS`, as any other NATS client sees them.

use async_nats::Client;
use futures_util::StreamExt as _;
use nats_service::{Discover, DiscoverError, nats_service};
use nats_service_tests::desk::{self, Act, DeskClient, ask, doing, task};
use nats_service_tests::{Nats, soon};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

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

#[tokio::test]
async fn counters_are_right_after_time_outs_and_shed_requests() {
    let nats = Nats::start().await;
    let desk = desk::desk_with(&nats, |server| server.max_in_flight(1).max_waiting(0, 0)).await;
    let body = |act| serde_json::to_vec(&doing("a", act, "")).unwrap();
    let counted = async |endpoint: &str, requests: u64, errors: u64, shed: u64| {
        nats_service_tests::until("all are counted", async || {
            let stats = desk::stats(&nats.client, "desk", endpoint).await;
            stats["num_requests"] == requests
                && stats["num_errors"] == errors
                && stats["data"]["num_shed"] == shed
        })
        .await;
        desk::stats(&nats.client, "desk", endpoint).await
    };

    let reply = ask(&nats.client, "desk.hasty", body(Act::Hold)).await;
    assert_eq!(desk::refusal(&reply).0, 504);
    let stats = counted("hasty", 1, 1, 0).await;
    let took = stats["processing_time"].as_u64().unwrap();
    assert!(took >= 300_000_000, "a time-out took its time: {stats}");
    assert!(stats["last_error"].as_str().unwrap().starts_with("504:"));

    let client = nats.client.clone();
    let held = body(Act::Hold);
    let held = tokio::spawn(async move { ask(&client, "desk.echo", held).await });
    desk.worker.until_running(1).await;
    for _ in 0..3 {
        let reply = ask(&nats.client, "desk.echo", body(Act::Answer)).await;
        assert_eq!(desk::refusal(&reply).0, 429);
    }
    desk.worker.gate.add_permits(1);
    held.await.unwrap();
    let stats = counted("echo", 4, 3, 3).await;
    assert!(stats["last_error"].as_str().unwrap().starts_with("429:"));
}

#[tokio::test]
async fn two_services_with_endpoints_of_one_name_are_counted_apart() {
    let nats = Nats::start().await;
    let _both = (desk::desk(&nats).await, desk::keeper(&nats).await);
    /// Called as another service's is.
    #[nats_service(name = "double", subject = "other.place")]
    trait Double {
        async fn echo(&self, task: desk::Task) -> desk::Task;
    }
    struct Mirror;
    impl Double for Mirror {
        async fn echo(&self, task: desk::Task) -> desk::Task {
            task
        }
    }
    let server = nats_service::Server::new(nats.client.clone()).serve(DoubleServer::new(Mirror));
    let _third = server.start().await.unwrap();
    DeskClient::new(nats.client.clone())
        .echo(task("a"))
        .await
        .unwrap();
    for (service, count) in [("desk", 1), ("double", 0)] {
        nats_service_tests::until("it is counted", async || {
            desk::stats(&nats.client, service, "echo").await["num_requests"] == count
        })
        .await;
    }
}

#[tokio::test]
async fn our_client_finds_every_instance_and_passes_over_what_is_no_answer() {
    let nats = Nats::start().await;
    let discover = Discover::new(nats.client.clone());
    assert_eq!(
        discover.ping().await.unwrap(),
        [],
        "nobody is there, and that is said at once"
    );

    let _two = (desk::desk(&nats).await, desk::keeper(&nats).await);
    // Somebody who answers with rubbish, thrice.
    let mut asked = nats.client.subscribe("$SRV.INFO").await.unwrap();
    let rubbish = nats.client.clone();
    tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            for body in [
                "",
                "[1",
                r#"{"type":"io.nats.micro.v1.ping_response","name":"x"}"#,
            ] {
                let _ = rubbish
                    .publish(question.reply.clone().unwrap(), body.into())
                    .await;
            }
        }
    });
    nats_service_tests::processed(&nats.client).await;
    let info = discover
        .clone()
        .stall(Duration::from_secs(1))
        .info()
        .await
        .unwrap();
    let names: HashSet<_> = info.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, HashSet::from(["desk", "keeper"]));

    let one = &info[0];
    let stats = discover
        .clone()
        .service(&one.name)
        .id(&one.id)
        .at_most(1)
        .stats()
        .await
        .unwrap();
    assert_eq!((stats.len(), &stats[0].id), (1, &one.id));
    for wrong in ["a b", ">", "", "a.b", "*"] {
        let error = discover.clone().service(wrong).ping().await.unwrap_err();
        assert!(matches!(error, DiscoverError::Name(_)), "{error}");
    }
    let error = discover.id("x").ping().await.unwrap_err();
    assert!(matches!(error, DiscoverError::IdWithoutService), "{error}");
}
