//! Answers that do not fit a message travel by reference.

use async_nats::{HeaderMap, Message};
use futures_util::StreamExt as _;
use nats_service::{CallError, Code};
use nats_service_tests::desk::{self, Act, KeeperClient, Task, ask, doing, task};
use nats_service_tests::{Nats, PATIENCE, soon};

const SIZE: usize = 5_000_000;

/// Stands in for the service, and gives every caller the same reply.
async fn answer_with(nats: &Nats, reply: &Message) {
    let (client, _) = nats_service_tests::connect(&nats.server).await;
    let mut requests = client.subscribe("keeper.render").await.unwrap();
    nats_service_tests::processed(&client).await;
    let (headers, body) = (
        reply.headers.clone().unwrap_or_default(),
        reply.payload.clone(),
    );
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let to = request.reply.unwrap();
            let sent = client.publish_with_headers(to, headers.clone(), body.clone());
            sent.await.unwrap();
        }
    });
}

#[tokio::test]
async fn a_large_answer_is_an_ordinary_call_with_jetstream_and_without() {
    let nats = Nats::start().await;
    let _keeper = desk::keeper(&nats).await;
    let bare = KeeperClient::new(nats.client.clone());
    let with = bare.clone().with_jetstream(nats.js.clone());
    for client in [&bare, &with] {
        let answer = soon("an answer", client.render(doing("a", Act::Grow(SIZE), "")))
            .await
            .unwrap();
        assert_eq!(answer.text.len(), SIZE);
        assert!(answer.text.bytes().all(|byte| byte == b'x'));
    }
    let stored = with
        .stores()
        .unwrap()
        .render()
        .at("a")
        .unwrap()
        .info()
        .await
        .unwrap()
        .unwrap();
    assert!(stored.size as usize > SIZE && stored.chunks > 1);
    // A small one is an ordinary message, and an object after it.
    let reply = with.render(task("small")).reply().await.unwrap();
    assert_eq!(reply.headers.get("Nats-Service-Object"), None);
}

#[tokio::test]
async fn the_reference_names_an_object_that_any_client_can_read_and_check() {
    use tokio::io::AsyncReadExt as _;
    let nats = Nats::start().await;
    let _keeper = desk::keeper(&nats).await;
    let body = serde_json::to_vec(&doing("a", Act::Grow(SIZE), "")).unwrap();
    let reply = ask(&nats.client, "keeper.render", body).await;
    let headers = reply.headers.expect("headers");
    assert_eq!(
        headers.get("Nats-Service-Object").unwrap().as_str(),
        "large/task.a"
    );
    assert!(reply.payload.is_empty());
    let store = nats.js.get_object_store("large").await.unwrap();
    let mut object = store.get("task.a").await.unwrap();
    let mut bytes = Vec::new();
    object.read_to_end(&mut bytes).await.unwrap();
    let digest = headers.get("Nats-Service-Object-Digest").unwrap().as_str();
    assert_eq!(object.info().digest.as_deref(), Some(digest));
    let task: Task = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(task.text.len(), SIZE);
}

#[tokio::test]
async fn an_object_that_was_overwritten_or_removed_in_between_is_a_clear_error() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let body = serde_json::to_vec(&doing("a", Act::Grow(SIZE), "")).unwrap();
    let reply = ask(&nats.client, "keeper.render", body).await;
    keeper.running.shutdown(PATIENCE).await.unwrap();
    answer_with(&nats, &reply).await;
    let client = KeeperClient::new(nats.client.clone());
    client.render(task("a")).await.expect("it is there");

    let store = nats.js.get_object_store("large").await.unwrap();
    let mut other: &[u8] = &vec![b'y'; SIZE];
    store.put("task.a", &mut other).await.unwrap();
    match soon("an answer", client.render(task("a"))).await {
        Err(error @ CallError::Object(_)) => {
            assert_eq!(error.code(), Code::DataLoss);
            assert!(
                error.to_string().contains("`task.a` was overwritten"),
                "{error}"
            );
        }
        other => panic!("{:?}", other.map(|task| task.text.len())),
    }
    store.delete("task.a").await.unwrap();
    match soon("an answer", client.render(task("a"))).await {
        Err(error @ CallError::Object(_)) => {
            assert!(error.to_string().contains("task.a"), "{error}")
        }
        other => panic!("{:?}", other.map(|task| task.text.len())),
    }
}

#[tokio::test]
async fn a_reference_that_makes_no_sense_is_an_error_and_no_more() {
    let nats = Nats::start().await;
    let mut message = ask(&nats.client, "$JS.API.INFO", "").await;
    message.payload = Default::default();
    for reference in [
        "", "/", "large", "no/such", "../x/..", "a b/c", "*/>", "large/",
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Service-Object", reference);
        message.headers = Some(headers);
        let nats = Nats::start().await;
        answer_with(&nats, &message).await;
        let client = KeeperClient::new(nats.client.clone());
        match soon("an answer", client.render(task("a"))).await {
            Err(CallError::Object(_)) => {}
            other => panic!("{reference}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn without_its_bucket_a_large_answer_is_unavailable_and_a_small_one_is_not() {
    let nats = Nats::start().await;
    let _keeper = desk::keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone()).with_timeout(PATIENCE);
    nats.js.delete_object_store("large").await.unwrap();
    client.render(task("a")).await.unwrap();
    let ended = soon(
        "an answer",
        client.render(doing("b", Act::Grow(2 << 20), "")),
    )
    .await;
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
}
