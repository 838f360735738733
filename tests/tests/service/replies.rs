//! A reply goes to an inbox, and nowhere else.

use futures_util::StreamExt as _;
use nats_service_tests::desk::{self, Act, beside_a_hundred, doing, task};
use nats_service_tests::{Nats, soon, until};

const FORGED: [&str; 8] = [
    "$KV.b.victim",
    "$JS.API.STREAM.DELETE.KV_b",
    "$JS.API.STREAM.PURGE.KV_b",
    "$SYS.REQ.SERVER.PING",
    "_GR_.x.y.$KV.b.victim",
    "_GR_.x.y.$JS.API.STREAM.DELETE.KV_b",
    "orders.new",
    "$SRV.PING",
];

/// The server itself refuses a client's `_GR_.`; that ours refuses it, if it comes through a gateway, is `reply`'s own test.
const PASSED_ON: usize = FORGED.len() - 2;

#[tokio::test]
async fn a_forged_reply_subject_gets_nothing_and_is_counted() {
    let nats = Nats::start().await;
    nats.kv_bucket("b").await;
    let bucket = nats.js.get_key_value("b").await.unwrap();
    bucket.put("victim", "safe".into()).await.unwrap();
    let desk = desk::desk(&nats).await;
    let mut seen = nats.client.subscribe(">").await.unwrap();
    nats_service_tests::processed(&nats.client).await;
    beside_a_hundred(&nats.client, &desk.worker, async || {
        for reply in FORGED {
            for body in [serde_json::to_vec(&task("a")).unwrap(), Vec::new()] {
                let sent = nats
                    .client
                    .publish_with_reply("desk.echo", reply, body.into());
                sent.await.unwrap();
            }
        }
        until("they are counted", async || {
            let stats = desk::stats(&nats.client, "desk", "echo").await;
            stats["data"]["num_forged"] == 2 * PASSED_ON
        })
        .await;
        assert_eq!(desk.worker.begun(), 100);
    })
    .await;
    // Everything that the service ever sent comes before this.
    nats.client.publish("the.end", "".into()).await.unwrap();
    loop {
        let message = soon("a message", seen.next()).await.unwrap();
        let subject = message.subject.as_str();
        assert!(!FORGED.contains(&subject), "{subject}");
        assert!(!subject.starts_with("_GR_."), "{subject}");
        if subject == "the.end" {
            break;
        }
    }
    let entry = bucket.entry("victim").await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.revision), (&b"safe"[..], 1));
    assert_eq!(nats.messages("KV_b", ">").await, 1);
}

#[tokio::test]
async fn a_forged_reply_subject_is_no_way_around_through_an_error_or_a_kept_answer() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    for act in [Act::Answer, Act::Fail, Act::Panic] {
        for method in ["keep", "keep_surely", "forget"] {
            let body = serde_json::to_vec(&doing("a", act.clone(), "")).unwrap();
            let subject = format!("keeper.{method}");
            let sent = nats
                .client
                .publish_with_reply(subject, "$KV.kept.task.victim", body.into());
            sent.await.unwrap();
        }
    }
    until("they are counted", async || {
        let stats = desk::stats(&nats.client, "keeper", "forget").await;
        stats["data"]["num_forged"] == 3
    })
    .await;
    assert_eq!(keeper.worker.begun(), 0);
    keeper
        .running
        .shutdown(nats_service_tests::PATIENCE)
        .await
        .unwrap();
    assert_eq!(nats.messages("KV_kept", ">").await, 0);
    assert_eq!(nats.messages("KV_sure", ">").await, 0);
}

#[tokio::test]
async fn another_inbox_prefix_is_answered_when_it_is_allowed() {
    let nats = Nats::start().await;
    let _desk = desk::desk_with(&nats, |server| server.allow_reply_prefix("_tenant")).await;
    let options = async_nats::ConnectOptions::new().custom_inbox_prefix("_tenant.blue");
    let client = options.connect(nats.server.url()).await.unwrap();
    let desk = desk::DeskClient::new(client);
    assert_eq!(desk.echo(task("a")).await.unwrap(), task("a"));
}
