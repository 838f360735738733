//! Buckets that a program makes: every setting, mirrors, sources, and other JetStream domains.

use async_nats::jetstream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{
    BucketSettings, Difference, KvStore, Origin, Placement, Provision, ProvisionError, ReadLevel,
    Republish, Storage, StoreError, WatchEvent, nats_service,
};
use nats_service_testkit::TestServer;
use nats_service_tests::{Nats, connect, soon, too_old, until};
use serde_json::{Value, json};
use std::time::Duration;

async fn config(js: &jetstream::Context, stream: &str) -> Value {
    let info: Value = js
        .request(format!("STREAM.INFO.{stream}"), &json!({}))
        .await
        .expect("the stream");
    info["config"].clone()
}

fn everything() -> BucketSettings {
    BucketSettings::new("b")
        .history(5)
        .ttl(Duration::from_secs(3600))
        .limit_markers(Duration::from_secs(60))
        .description("what for")
        .replicas(1)
        .storage(Storage::Memory)
        .max_bytes(10_000_000)
        .max_value_size(100_000)
        .compression(true)
        .placement(Placement::default().tag("ssd"))
        .republish(Republish::new("$KV.b.>", "changed.>").headers_only())
        .metadata("team", "blue")
        .direct_get(true)
}

#[tokio::test]
async fn every_setting_reaches_the_server_and_is_found_there_again() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start_with(|server| server.config("server_tags: [\"ssd\"]")).await;
    let store = KvStore::<u32>::create(nats.js.clone(), everything());
    let store = store.await.expect("a bucket");
    let made = config(&nats.js, "KV_b").await;
    for (field, value) in [
        ("max_msgs_per_subject", json!(5)),
        ("max_age", json!(3_600_000_000_000_u64)),
        ("allow_msg_ttl", json!(true)),
        ("subject_delete_marker_ttl", json!(60_000_000_000_u64)),
        ("description", json!("what for")),
        ("storage", json!("memory")),
        ("max_bytes", json!(10_000_000)),
        ("max_msg_size", json!(100_000)),
        ("compression", json!("s2")),
        ("placement", json!({ "tags": ["ssd"] })),
        (
            "republish",
            json!({ "src": "$KV.b.>", "dest": "changed.>", "headers_only": true }),
        ),
        ("discard", json!("new")),
        ("deny_delete", json!(true)),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    assert_eq!(made["metadata"]["team"], "blue");
    KvStore::<u32>::create(nats.js.clone(), everything())
        .await
        .expect("no difference to itself");

    let mut heard = nats.client.subscribe("changed.>").await.unwrap();
    nats.client.flush().await.unwrap();
    store.key("a").unwrap().put(&1).await.unwrap();
    let heard = soon("the republished write", heard.next()).await.unwrap();
    assert_eq!(
        (heard.subject.as_str(), heard.payload.len()),
        ("changed.a", 0)
    );
    let status = store.status().await.unwrap();
    assert_eq!(status.history, 5);
}

#[tokio::test]
async fn a_bucket_is_changed_only_when_asked_and_only_in_what_is_named() {
    let nats = Nats::start().await;
    let first = BucketSettings::new("b").metadata("team", "blue").history(2);
    KvStore::<u32>::create(nats.js.clone(), first)
        .await
        .unwrap();
    let before = config(&nats.js, "KV_b").await;

    let other = BucketSettings::new("b").metadata("cost", "low").history(3);
    let refused = KvStore::<u32>::create(nats.js.clone(), other.clone()).await;
    match refused {
        Err(ProvisionError::Differs { differences, .. }) => {
            let named = |it: &Difference| it.setting;
            let named: Vec<_> = differences.iter().map(named).collect();
            assert_eq!(named, ["metadata", "history"]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(config(&nats.js, "KV_b").await, before);

    let other = other.provision(Provision::Update);
    KvStore::<u32>::create(nats.js.clone(), other)
        .await
        .unwrap();
    let mut expected = before;
    expected["max_msgs_per_subject"] = json!(3);
    expected["metadata"]["cost"] = json!("low");
    assert_eq!(config(&nats.js, "KV_b").await, expected);

    let bind = BucketSettings::new("missing").provision(Provision::None);
    let missing = KvStore::<u32>::create(nats.js.clone(), bind).await;
    assert!(matches!(missing, Err(ProvisionError::Missing { .. })));
}

#[tokio::test]
async fn times_to_live_of_keys_cannot_be_switched_off_again_and_the_server_s_refusal_is_told() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let with = BucketSettings::new("b").key_ttl(true);
    let store = KvStore::<u32>::create(nats.js.clone(), with).await.unwrap();
    let without = BucketSettings::new("b").key_ttl(false);
    let changed = KvStore::<u32>::create(nats.js.clone(), without.provision(Provision::Update));
    match changed.await {
        Err(error @ ProvisionError::Refused { .. }) => {
            assert!(error.to_string().contains("TTL"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(store.status().await.unwrap().key_ttl);
}

#[tokio::test]
async fn settings_that_no_bucket_can_have_are_refused_before_anything_is_sent() {
    let nats = Nats::start().await;
    for (settings, named) in [
        (BucketSettings::new("a.b"), "name"),
        (BucketSettings::new("b").history(0), "history"),
        (BucketSettings::new("b").history(65), "history"),
        (
            BucketSettings::new("b").limit_markers(Duration::from_millis(1500)),
            "limit_markers",
        ),
        (
            BucketSettings::new("b")
                .limit_markers(Duration::from_secs(1))
                .key_ttl(false),
            "key_ttl",
        ),
        (
            BucketSettings::new("b")
                .mirror(Origin::bucket("c"))
                .source(Origin::bucket("d")),
            "mirror",
        ),
        (
            BucketSettings::new("b").source(Origin::bucket("a b")),
            "name",
        ),
    ] {
        match KvStore::<u32>::create(nats.js.clone(), settings).await {
            Err(ProvisionError::Setting { setting, .. }) => assert_eq!(setting, named),
            other => panic!("{other:?}"),
        }
    }
    assert!(nats.js.get_stream("KV_b").await.is_err());
}

/// What an attribute says of times to live, a start does.
#[nats_service]
trait Leases {
    #[kv_store(
        bucket = "leases",
        key = "of.<name>",
        limit_markers = "1m",
        write = "never"
    )]
    async fn lease(&self, name: String) -> String;
    #[kv_store(bucket = "keys", key = "of.<name>", key_ttl = true, write = "never")]
    async fn key(&self, name: String) -> String;
}

struct Desk;

impl Leases for Desk {
    async fn lease(&self, name: String) -> String {
        name
    }
    async fn key(&self, name: String) -> String {
        name
    }
}

#[tokio::test]
async fn an_attribute_makes_a_bucket_whose_keys_can_end() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let server = nats_service::Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let running = server.serve(LeasesServer::new(Desk)).start().await.unwrap();
    let stores = LeasesStores::new(nats.js.clone());
    let second = Duration::from_secs(1);
    let lease = stores.lease().at("a").unwrap();
    lease.with_ttl(second).create(&"me".into()).await.unwrap();
    let key = stores.key().at("a").unwrap();
    key.with_ttl(second).create(&"me".into()).await.unwrap();
    until("both end", async || {
        lease.get().await.unwrap().is_none() && key.get().await.unwrap().is_none()
    })
    .await;
    // One has left a mark, the other nothing.
    assert_eq!(nats.messages("KV_leases", "$KV.leases.>").await, 1);
    assert_eq!(nats.messages("KV_keys", "$KV.keys.>").await, 0);
    running.shutdown(Duration::from_secs(10)).await.unwrap();
}

/// Everything there is to do with a bucket that is a copy, or elsewhere. `shown` is where writes become visible.
async fn all_works(under: &str, here: &KvStore<u32>, shown: &KvStore<u32>) {
    let name = format!("{under}.a");
    let key = here.key(&*name).unwrap();
    let mut watch = here.watch().await.unwrap();
    let first = key.create(&1).await.unwrap();
    let seen = key.read(ReadLevel::AtLeast(first)).await.unwrap().unwrap();
    assert_eq!((*seen.value(), seen.key()), (1, &*name));
    let second = key.update(&2, first).await.unwrap();
    match key.update(&3, first).await {
        Err(StoreError::Conflict { current, .. }) => assert_eq!(current, Some(second)),
        other => panic!("{other:?}"),
    }
    let seen = key.read(ReadLevel::AtLeast(second)).await.unwrap().unwrap();
    assert_eq!(*seen.value(), 2);
    let confirmed = key.read(ReadLevel::Confirmed).await.unwrap().unwrap();
    assert_eq!(*confirmed.value(), 2);
    let shown = shown.key(&*name).unwrap();
    until("it is there too", async || {
        let entry = shown.get().await.unwrap();
        entry.is_some_and(|entry| *entry.value() == 2)
    })
    .await;
    assert_eq!(key.history().await.unwrap().len(), 2);
    assert_eq!(here.get_many([&*name, "nothing"]).await.unwrap().len(), 1);
    assert_eq!(here.under(under).unwrap().get_all().await.unwrap().len(), 1);
    let keys: Vec<String> = here.keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys, [&*name]);
    let back = key.roll_back(first).await.unwrap();
    let seen = key.read(ReadLevel::AtLeast(back)).await.unwrap().unwrap();
    assert_eq!(*seen.value(), 1);
    let gone = key.purge().await.unwrap();
    assert!(key.read(ReadLevel::AtLeast(gone)).await.unwrap().is_none());
    let again = key.create(&4).await.unwrap();
    let mut revision = 0;
    while revision < again {
        if let WatchEvent::Change(change) = soon("a change", watch.next()).await.unwrap().unwrap() {
            revision = change.revision;
        }
    }
}

#[tokio::test]
async fn a_mirror_is_read_here_and_written_to_there() {
    if too_old(1).await {
        return;
    }
    let nats = Nats::start().await;
    let settings = BucketSettings::new("origin").history(5);
    let origin = KvStore::<u32>::create(nats.js.clone(), settings)
        .await
        .unwrap();
    let settings = BucketSettings::new("copy")
        .history(5)
        .mirror(Origin::bucket("origin"));
    let copy = KvStore::<u32>::create(nats.js.clone(), settings.clone());
    all_works("x", &copy.await.unwrap(), &origin).await;
    KvStore::<u32>::create(nats.js.clone(), settings)
        .await
        .unwrap();
    let copy = KvStore::<u32>::open(nats.js.clone(), "copy").await.unwrap();
    let key = copy.key("x.a").unwrap();
    assert_eq!(*key.get().await.unwrap().unwrap().value(), 4);
    key.put(&5).await.unwrap();

    // A handle that was not opened knows of nothing, and says so before it harms.
    let bound = KvStore::<u32>::bind(nats.js.clone(), "copy").unwrap();
    match bound.key("x.a").unwrap().put(&1).await {
        Err(StoreError::Mirror { bucket, origin }) => {
            assert_eq!((bucket.as_str(), origin.as_str()), ("copy", "origin"));
        }
        other => panic!("{other:?}"),
    }
    let missing = KvStore::<u32>::open(nats.js.clone(), "nowhere").await;
    assert!(matches!(missing, Err(StoreError::BucketNotFound { .. })));
}

#[tokio::test]
async fn sources_flow_into_one_bucket_under_its_own_keys() {
    let nats = Nats::start().await;
    let make = async |settings| {
        KvStore::<u32>::create(nats.js.clone(), settings)
            .await
            .unwrap()
    };
    let one = make(BucketSettings::new("one")).await;
    let two = make(BucketSettings::new("two")).await;
    let settings = BucketSettings::new("all")
        .source(Origin::bucket("one"))
        .source(Origin::bucket("two"));
    let all = make(settings.clone()).await;
    one.key("a").unwrap().put(&1).await.unwrap();
    two.key("b").unwrap().put(&2).await.unwrap();
    all.key("c").unwrap().put(&3).await.unwrap();
    until("all are there", async || {
        all.get_many(["a", "b", "c"]).await.unwrap().len() == 3
    })
    .await;
    one.key("a").unwrap().delete().await.unwrap();
    until("a deletion comes, too", async || {
        all.key("a").unwrap().get().await.unwrap().is_none()
    })
    .await;
    make(settings).await;
}

/// A hub, and a site that hangs on it as a leaf, each with JetStream of its own.
async fn hub_and_site() -> (TestServer, TestServer) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    drop(listener);
    let hub = TestServer::builder().config(format!(
        "leafnodes {{ host: 127.0.0.1, port: {port} }}\njetstream {{ domain: hub }}"
    ));
    let hub = hub.start().await.expect("a hub");
    let site = TestServer::builder().config(format!(
        "leafnodes {{ remotes: [ {{ url: \"nats://127.0.0.1:{port}\" }} ] }}\njetstream {{ domain: site }}"
    ));
    let site = site.start().await.expect("a site");
    (hub, site)
}

#[tokio::test]
async fn a_bucket_of_another_domain_is_read_and_written_and_mirrored() {
    if too_old(1).await {
        return;
    }
    let (hub, site) = hub_and_site().await;
    let (_, at_hub) = connect(&hub).await;
    let (client, at_site) = connect(&site).await;
    let far = jetstream::with_domain(client, "hub");
    until("the site reaches the hub", async || {
        far.query_account().await.is_ok()
    })
    .await;

    let settings = BucketSettings::new("b").history(5);
    let here = KvStore::<u32>::create(far.clone(), settings).await.unwrap();
    let there = KvStore::<u32>::bind(at_hub, "b").unwrap();
    // A bucket of the same name at the site is not meant, and must not get what is.
    let decoy = KvStore::<u32>::create(at_site.clone(), BucketSettings::new("decoy")).await;
    decoy.unwrap();
    all_works("x", &here, &there).await;
    let bound = KvStore::<u32>::bind(far, "b").unwrap();
    bound.key("y").unwrap().put(&7).await.unwrap();
    let entry = there.key("y").unwrap().get().await.unwrap().unwrap();
    assert_eq!(*entry.value(), 7);
    bound.key("y").unwrap().purge().await.unwrap();
    bound.key("x.a").unwrap().purge().await.unwrap();
    assert_eq!(bound.keys().await.unwrap().count().await, 0);

    // A mirror at the site, of the hub's bucket, of another name.
    let settings = BucketSettings::new("copy")
        .history(5)
        .mirror(Origin::bucket("b").domain("hub"));
    let copy = KvStore::<u32>::create(at_site, settings).await.unwrap();
    all_works("z", &copy, &there).await;
}
