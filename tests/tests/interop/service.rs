//! Their clients find and call ours; ours finds and calls theirs.

use crate::{decode, encode};
use nats_service::{CallError, Code, Discover, Error, Server, nats_service};
use nats_service_tests::foreign::Peer;
use nats_service_tests::{Nats, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

crate::each_language! {
    their_client_finds_ours
    their_client_calls_ours
    our_client_finds_theirs
    our_client_calls_theirs
}

/// Doubles numbers; theirs has the same subject.
#[nats_service(version = "1.2.3", metadata(team = "blue"))]
trait Doubler {
    #[endpoint(metadata(cost = "low"))]
    async fn double(&self, number: u32) -> Result<u32, Error>;

    #[endpoint(queue_group = false)]
    async fn everybody(&self) -> u32;

    #[endpoint(queue_group = "own")]
    #[kv_store(bucket = "halves", key = "half.<number>", write = "before_reply")]
    async fn half(&self, number: u32) -> u32;
}

struct Adder;

impl Doubler for Adder {
    async fn double(&self, number: u32) -> Result<u32, Error> {
        number
            .checked_mul(2)
            .ok_or_else(|| Error::invalid_argument("too large"))
    }

    async fn everybody(&self) -> u32 {
        1
    }

    async fn half(&self, number: u32) -> u32 {
        number / 2
    }
}

async fn serve(nats: &Nats) -> nats_service::Running {
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let running = server.serve(DoublerServer::new(Adder)).start().await;
    running.expect("a service")
}

async fn their_client_finds_ours(mut peer: Peer, nats: Nats) {
    let _two = (serve(&nats).await, serve(&nats).await);
    let client = DoublerClient::new(nats.client.clone());
    client.double(1).await.unwrap();
    client.double(u32::MAX).await.unwrap_err();
    client.half(8).await.unwrap();
    for verb in ["ping", "info", "stats"] {
        for name in [json!(null), json!("doubler")] {
            let found = peer
                .must("service_find", json!({ "verb": verb, "name": name }))
                .await;
            let found = found.as_array().unwrap();
            assert_eq!(found.len(), 2, "{verb} {name}: {found:?}");
            assert_ne!(found[0]["id"], found[1]["id"]);
            for one in found {
                assert_eq!(one["type"], format!("io.nats.micro.v1.{verb}_response"));
                assert_eq!(one["name"], "doubler");
                assert_eq!(one["version"], "1.2.3");
                assert_eq!(one["metadata"], json!({"team": "blue"}));
            }
        }
    }
    let info = peer.must("service_find", json!({ "verb": "info" })).await;
    assert_eq!(
        info[0]["description"],
        "Doubles numbers; theirs has the same subject."
    );
    assert_eq!(
        info[0]["endpoints"],
        json!([
            {"name": "double", "subject": "doubler.double", "queue_group": "q", "metadata": {"cost": "low"}},
            {"name": "everybody", "subject": "doubler.everybody", "queue_group": "", "metadata": {}},
            {"name": "half", "subject": "doubler.half", "queue_group": "own", "metadata": {}},
        ])
    );
    // A reply may be here a moment before its count.
    until("all are counted", async || {
        let stats = peer.must("service_find", json!({ "verb": "stats" })).await;
        let sum = |endpoint: usize, field: &str| -> u64 {
            let stats = stats.as_array().unwrap().iter();
            stats
                .filter_map(|one| one["endpoints"][endpoint][field].as_u64())
                .sum()
        };
        sum(0, "num_requests") == 2
            && sum(0, "num_errors") == 1
            && sum(0, "processing_time") > 0
            && sum(2, "num_requests") == 1
    })
    .await;
    let stats = peer.must("service_find", json!({ "verb": "stats" })).await;
    let stats = stats.as_array().unwrap();
    let errors: Vec<_> = stats
        .iter()
        .map(|one| &one["endpoints"][0]["last_error"])
        .collect();
    assert!(errors.contains(&&json!("400:too large")), "{errors:?}");
    let writers: u64 = stats
        .iter()
        .filter_map(|one| one["endpoints"][2]["data"]["writers"][0]["written"].as_u64())
        .sum();
    assert_eq!(writers, 1, "{stats:?}");
}

async fn their_client_calls_ours(mut peer: Peer, nats: Nats) {
    let _running = serve(&nats).await;
    let call = async |peer: &mut Peer, body: &str| {
        let call = json!({ "subject": "doubler.double", "data": encode(body) });
        peer.must("request", call).await
    };
    let reply = call(&mut peer, "21").await;
    assert_eq!(decode(&reply["data"]), b"42");
    let reply = call(&mut peer, "no number").await;
    assert_eq!(
        reply["headers"]["Nats-Service-Error-Code"], "400",
        "{reply}"
    );
}

async fn our_client_finds_theirs(mut peer: Peer, nats: Nats) {
    let metadata = json!({"team": "red"});
    let served = json!({
        "name": "theirs", "version": "2.0.0", "description": "not ours", "metadata": metadata, "queue": "gang",
    });
    let id = peer.must("service_serve", served).await;
    let id = id.as_str().unwrap();
    let _ours = serve(&nats).await;
    let discover = Discover::new(nats.client.clone())
        .stall(Duration::from_secs(2))
        .timeout(Duration::from_secs(20));

    let all = discover.clone().at_most(2).ping().await.unwrap();
    let mut names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["doubler", "theirs"]);

    let info = discover
        .clone()
        .service("theirs")
        .at_most(1)
        .info()
        .await
        .unwrap();
    let [one] = &info[..] else { panic!("{info:?}") };
    assert_eq!((one.id.as_str(), one.version.as_str()), (id, "2.0.0"));
    assert_eq!(one.description, "not ours");
    assert_eq!(
        one.metadata,
        BTreeMap::from([("team".into(), "red".into())])
    );
    assert_eq!(one.endpoints.len(), 1);
    let endpoint = &one.endpoints[0];
    assert_eq!(
        (endpoint.name.as_str(), endpoint.subject.as_str()),
        ("double", "theirs.double")
    );
    assert_eq!(endpoint.queue_group, "gang");
    assert_eq!(endpoint.metadata["cost"], "low");

    nats.client
        .request("theirs.double", "4".into())
        .await
        .unwrap();
    nats.client
        .request("theirs.double", "boom".into())
        .await
        .unwrap();
    let stats = discover
        .service("theirs")
        .id(id)
        .at_most(1)
        .stats()
        .await
        .unwrap();
    let [one] = &stats[..] else {
        panic!("{stats:?}")
    };
    assert!(!one.started.is_empty());
    let endpoint = &one.endpoints[0];
    assert_eq!(
        (endpoint.num_requests, endpoint.num_errors),
        (2, 1),
        "{endpoint:?}"
    );
    assert!(endpoint.last_error.contains("it fails"), "{endpoint:?}");
}

async fn our_client_calls_theirs(mut peer: Peer, nats: Nats) {
    let served =
        json!({ "name": "doubler", "version": "2.0.0", "description": "the same subject" });
    let _: Value = peer.must("service_serve", served).await;
    let client = DoublerClient::new(nats.client.clone());
    assert_eq!(client.double(21).await.unwrap(), 42);
    /// The same subject, with a body that is no number.
    #[nats_service(name = "wordy", subject = "doubler")]
    trait Wordy {
        async fn double(&self, word: String) -> Result<u32, Error>;
    }
    let error = WordyClient::new(nats.client)
        .double("x".to_owned())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let CallError::Service(error) = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.message(), "no number");
}
