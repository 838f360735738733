//! What happens to buckets at start, on a real server.

use super::*;
use crate::store::Storage;
use async_nats::jetstream;
use futures_util::StreamExt as _;
use nats_service_testkit::{TestCluster, TestServer};

async fn server() -> (TestServer, Context) {
    let server = TestServer::start().await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    (server, jetstream::new(client))
}

fn settings() -> BucketSettings {
    BucketSettings::new("b")
}

async fn config(js: &Context, stream: &str) -> Value {
    let info: Value = js
        .request(format!("STREAM.INFO.{stream}"), &json!({}))
        .await
        .unwrap();
    info["config"].clone()
}

#[tokio::test]
async fn a_missing_bucket_is_made_as_the_clients_make_theirs() {
    let (_server, js) = server().await;
    let made = provision(&js, StoreKind::Kv, &settings()).await.unwrap();
    assert!(made.created && made.keeps_only_the_last());
    assert_eq!((&*made.put_prefix, made.through_api), ("$KV.b.", false));
    js.create_key_value(jetstream::kv::Config {
        bucket: "theirs".into(),
        ..Default::default()
    })
    .await
    .unwrap();
    let (mut ours, mut theirs) = (config(&js, "KV_b").await, config(&js, "KV_theirs").await);
    // The one thing that theirs have not, and what the server notes of it.
    assert_eq!(ours["allow_batched"], true);
    for config in [&mut ours, &mut theirs] {
        for own in [
            "name",
            "subjects",
            "description",
            "allow_batched",
            "metadata",
        ] {
            config.as_object_mut().unwrap().remove(own);
        }
    }
    assert_eq!(ours, theirs);

    let made = provision(&js, StoreKind::Object, &settings())
        .await
        .unwrap();
    assert!(made.created && made.keeps_only_the_last());
    js.create_object_store(jetstream::object_store::Config {
        bucket: "theirs".into(),
        ..Default::default()
    })
    .await
    .unwrap();
    let (mut ours, mut theirs) = (config(&js, "OBJ_b").await, config(&js, "OBJ_theirs").await);
    for config in [&mut ours, &mut theirs] {
        for own in ["name", "subjects", "description"] {
            config.as_object_mut().unwrap().remove(own);
        }
    }
    assert_eq!(ours, theirs);
}

#[tokio::test]
async fn every_named_setting_reaches_the_server_and_is_found_there_again() {
    let (_server, js) = server().await;
    let named = settings()
        .ttl(Duration::from_secs(3600))
        .description("what for")
        .replicas(1)
        .storage(Storage::Memory)
        .max_bytes(1_000_000)
        .compression(true);
    let object = provision(&js, StoreKind::Object, &named).await.unwrap();
    assert!(object.created);
    provision(&js, StoreKind::Object, &named).await.unwrap();
    let named = named.history(5).max_value_size(1000);
    assert!(provision(&js, StoreKind::Kv, &named).await.unwrap().created);
    let again = provision(&js, StoreKind::Kv, &named).await.unwrap();
    assert_eq!((again.created, again.history), (false, 5));
    // Nothing named, nothing compared.
    provision(&js, StoreKind::Kv, &settings()).await.unwrap();
}

#[tokio::test]
async fn a_bucket_that_differs_is_refused_setting_by_setting_and_left_alone() {
    let (_server, js) = server().await;
    provision(&js, StoreKind::Kv, &settings()).await.unwrap();
    let before = config(&js, "KV_b").await;
    let other = settings().history(5).ttl(Duration::from_secs(60));
    let error = provision(&js, StoreKind::Kv, &other).await.unwrap_err();
    let text = error.to_string();
    for part in [
        "`b`",
        "`history` is to be 5 and is 1 on the server",
        "`ttl` is to be \"1m\" and is without end on the server",
        "provision = \"update\"",
        "provision = \"warn\"",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let warn = other.provision(Provision::Warn);
    let bound = provision(&js, StoreKind::Kv, &warn).await.unwrap();
    assert_eq!(bound.history, 1, "what the server has");
    assert_eq!(config(&js, "KV_b").await, before);
}

#[tokio::test]
async fn an_update_changes_what_is_named_and_keeps_what_this_crate_does_not_know() {
    let (_server, js) = server().await;
    let mut theirs = settings().new_stream(StoreKind::Kv);
    theirs["allow_atomic"] = json!(true);
    theirs["metadata"] = json!({"owner": "somebody"});
    theirs["max_bytes"] = json!(1_000_000);
    let _: Value = js.request("STREAM.CREATE.KV_b", &theirs).await.unwrap();
    let before = config(&js, "KV_b").await;
    let update = settings()
        .ttl(Duration::from_secs(60))
        .history(3)
        .provision(Provision::Update);
    let bound = provision(&js, StoreKind::Kv, &update).await.unwrap();
    assert_eq!(bound.history, 3);
    let mut expected = before;
    expected["max_age"] = json!(60_000_000_000_u64);
    expected["duplicate_window"] = json!(60_000_000_000_u64);
    expected["max_msgs_per_subject"] = json!(3);
    assert_eq!(config(&js, "KV_b").await, expected);

    let storage = update.clone().storage(Storage::Memory);
    let error = provision(&js, StoreKind::Kv, &storage).await.unwrap_err();
    assert!(
        matches!(
            error,
            ProvisionError::Refused {
                action: "STREAM.UPDATE",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn binding_makes_nothing_and_compares_nothing() {
    let (_server, js) = server().await;
    let bind = settings().provision(Provision::None).history(5);
    let error = provision(&js, StoreKind::Kv, &bind).await.unwrap_err();
    assert!(matches!(error, ProvisionError::Missing { .. }), "{error}");
    provision(&js, StoreKind::Kv, &settings()).await.unwrap();
    let bound = provision(&js, StoreKind::Kv, &bind).await.unwrap();
    assert!(!bound.created);
    assert!(bound.keeps_only_the_last());
}

#[tokio::test]
async fn instances_that_start_at_once_agree() {
    let (_server, js) = server().await;
    let two = settings().history(2);
    let start = || provision(&js, StoreKind::Kv, &two);
    let starts = futures_util::future::join_all((0..16).map(|_| start())).await;
    assert!(starts.iter().all(Result::is_ok), "{starts:?}");

    let five = BucketSettings::new("c").history(5);
    let one = five.clone().history(1);
    let (five, one) = tokio::join!(
        provision(&js, StoreKind::Kv, &five),
        provision(&js, StoreKind::Kv, &one)
    );
    let refused = [five, one].into_iter().filter_map(Result::err);
    let refused: Vec<_> = refused.collect();
    assert!(
        matches!(refused[..], [ProvisionError::Differs { .. }]),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_without_jetstream_and_a_denied_request_say_what_to_do() {
    let plain = TestServer::builder()
        .jetstream(false)
        .start()
        .await
        .unwrap();
    let js = jetstream::new(async_nats::connect(plain.url()).await.unwrap());
    let error = provision(&js, StoreKind::Kv, &settings())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ProvisionError::NoJetStream { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("nats-server -js"), "{error}");

    let strict = TestServer::builder()
        .config("authorization { users: [{ user: u, password: p, permissions: { publish: { deny: \"$JS.API.STREAM.INFO.>\" } } }] }")
        .start()
        .await
        .unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password("u".into(), "p".into());
    let client = options.connect(strict.url()).await.unwrap();
    let mut js = jetstream::new(client);
    js.set_timeout(Duration::from_millis(200));
    let error = provision(&js, StoreKind::Kv, &settings())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("may publish `$JS.API.STREAM.INFO.KV_b`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_of_the_name_that_is_no_bucket_is_refused() {
    let (_server, js) = server().await;
    let stream = json!({"name": "KV_b", "subjects": ["somewhere.else"], "storage": "memory", "max_msgs_per_subject": -1});
    let _: Value = js.request("STREAM.CREATE.KV_b", &stream).await.unwrap();
    let error = provision(&js, StoreKind::Kv, &settings())
        .await
        .unwrap_err();
    assert!(matches!(error, ProvisionError::NoBucket { .. }), "{error}");
}

#[tokio::test]
async fn a_replicated_bucket_takes_writes_at_once() {
    let cluster = TestCluster::start().await.unwrap();
    let js = jetstream::new(async_nats::connect(cluster.server(0).url()).await.unwrap());
    for name in ["r1", "r2", "r3", "r4", "r5"] {
        let replicated = BucketSettings::new(name).replicas(3);
        let (one, two) = tokio::join!(
            provision(&js, StoreKind::Kv, &replicated),
            provision(&js, StoreKind::Kv, &replicated)
        );
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        let kv = js.get_key_value(name).await.unwrap();
        kv.put("a", "v".into()).await.unwrap();
    }
}

/// What a cluster does while it elects, in the order in which it is asked.
#[tokio::test]
async fn a_cluster_that_is_busy_is_asked_again() {
    let (_server, js) = server().await;
    let client = js.client();
    let mut asked = client.subscribe("busy.>").await.unwrap();
    let api = client.clone();
    let cluster = async move {
        let mut seen = Vec::new();
        while let Ok(Some(message)) =
            tokio::time::timeout(Duration::from_secs(1), asked.next()).await
        {
            let action = message.subject.strip_prefix("busy.").unwrap().to_owned();
            let reply = message.reply.unwrap();
            let real = format!("$JS.API.{action}");
            seen.push(action);
            let answer = match seen.len() {
                1 => continue,
                3 => r#"{"error":{"code":400,"err_code":10005,"description":"no suitable peers for placement, peer offline"}}"#.into(),
                _ => api.request(real, message.payload).await.unwrap().payload,
            };
            // The bucket is made, and nobody hears of it.
            if seen.len() != 5 {
                api.publish(reply, answer).await.unwrap();
            }
        }
        seen
    };
    let mut busy = jetstream::with_prefix(client, "busy");
    busy.set_timeout(Duration::from_millis(300));
    let settings = settings();
    let (made, seen) = tokio::join!(provision(&busy, StoreKind::Kv, &settings), cluster);
    assert!(!made.unwrap().created, "nobody can tell any more");
    let (info, create) = ("STREAM.INFO.KV_b", "STREAM.CREATE.KV_b");
    // What follows is the binding.
    assert_eq!(seen[..6], [info, info, create, info, create, info]);
}

#[test]
fn servers_that_lose_streams_are_refused() {
    for old in ["2.9.25", "2.10.22", "v2.10.22-RC.1"] {
        assert!(
            matches!(check_version(old), Err(ProvisionError::OldServer { .. })),
            "{old}"
        );
    }
    for new in ["2.10.23", "2.11.0", "3.0.0", "2.15.1-RC.2", ""] {
        check_version(new).unwrap();
    }
}
