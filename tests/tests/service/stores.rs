//! What the stores of a service's methods see of a bucket that they share.

use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{KvStore, ObjectEvent, ObjectStore, WatchEvent, message, nats_service};
use nats_service_tests::{Nats, soon};

#[message]
#[derive(Debug, PartialEq)]
struct Profile {
    name: String,
}

#[nats_service(version = "1.0.0")]
trait Shared {
    #[kv_store(bucket = "shared", key = "profile.<id>")]
    async fn save_profile(&self, id: String) -> Profile;

    #[kv_store(bucket = "shared", key = "count.<id>.<day>")]
    async fn count(&self, id: String, day: u32) -> u32;

    #[kv_store(bucket = "shared", key = "all")]
    async fn sum(&self) -> u64;

    #[object_store(bucket = "shared", key = "profile.<id>")]
    async fn paint(&self, id: String) -> Profile;

    #[object_store(bucket = "shared", key = "plot.<path..>")]
    async fn plot(&self, path: String) -> u32;
}

fn profile() -> Profile {
    Profile { name: "Ada".into() }
}

async fn stores() -> (Nats, SharedStores) {
    let nats = Nats::start().await;
    nats.kv_bucket("shared").await;
    nats.object_bucket("shared").await;
    let stores = SharedStores::new(nats.js.clone());
    (nats, stores)
}

#[tokio::test]
async fn a_methods_store_sees_only_the_keys_of_its_own_form() {
    let (nats, stores) = stores().await;
    let (profiles, counts, sum) = (stores.save_profile(), stores.count(), stores.sum());
    let mut watches = (
        profiles.watch().await.unwrap(),
        counts.watch().updates_only().await.unwrap(),
        sum.watch().await.unwrap(),
    );
    sum.at().unwrap().put(&3).await.unwrap();
    counts.at("a", 1).unwrap().put(&1).await.unwrap();
    profiles.at("a").unwrap().put(&profile()).await.unwrap();
    counts.at("a", 2).unwrap().put(&2).await.unwrap();

    let keys = profiles.keys().await.unwrap();
    assert_eq!(keys.try_collect::<Vec<_>>().await.unwrap(), ["profile.a"]);
    let keys = counts.keys().await.unwrap();
    let keys: Vec<String> = keys.try_collect().await.unwrap();
    assert_eq!(keys, ["count.a.1", "count.a.2"]);
    let keys = sum.all().keys().await.unwrap();
    assert_eq!(keys.try_collect::<Vec<_>>().await.unwrap(), ["all"]);

    let entries: Vec<_> = profiles
        .entries()
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].value(), &profile());
    let entries: Vec<_> = counts.entries().await.unwrap().try_collect().await.unwrap();
    let values: Vec<u32> = entries
        .into_iter()
        .map(nats_service::Entry::into_value)
        .collect();
    assert_eq!(values, [1, 2]);

    // One more for each, so that what should not have come would have come before it.
    profiles.at("z").unwrap().put(&profile()).await.unwrap();
    counts.at("z", 1).unwrap().put(&9).await.unwrap();
    sum.at().unwrap().put(&4).await.unwrap();
    macro_rules! seen {
        ($watch:expr, $last:expr) => {{
            let mut keys = Vec::new();
            while keys.len() < $last {
                match soon("a change", $watch.next()).await.unwrap().unwrap() {
                    WatchEvent::Change(change) => keys.push(change.key),
                    _ => assert!(keys.is_empty()),
                }
            }
            keys
        }};
    }
    assert_eq!(seen!(watches.0, 2), ["profile.a", "profile.z"]);
    let counted = seen!(watches.1, 3);
    assert_eq!(counted, ["count.a.1", "count.a.2", "count.z.1"]);
    assert_eq!(seen!(watches.2, 2), ["all", "all"]);

    // The whole bucket is a store's that is bound to it; and keys given whole are anybody's.
    let bound = KvStore::<serde_json::Value>::bind(nats.js.clone(), "shared").unwrap();
    assert_eq!(bound.keys().await.unwrap().count().await, 6);
    let under = profiles.under("count").unwrap().keys().await.unwrap();
    assert_eq!(under.count().await, 3);
    assert!(counts.key("profile.a").unwrap().get().await.is_err());
}

#[tokio::test]
async fn a_methods_object_store_sees_only_the_names_of_its_own_form() {
    let (nats, stores) = stores().await;
    let (paintings, plots) = (stores.paint(), stores.plot());
    let mut watch = paintings.watch().await.unwrap();
    plots.at("a/b").unwrap().put(&1).await.unwrap();
    paintings.at("a").unwrap().put(&profile()).await.unwrap();
    let list = paintings.list().await.unwrap();
    let names: Vec<_> = list.map_ok(|info| info.name).try_collect().await.unwrap();
    assert_eq!(names, ["profile.a"]);
    let mut names = Vec::new();
    while names.is_empty() {
        let event = soon("an event", watch.next()).await.unwrap().unwrap();
        if let ObjectEvent::Changed(info) = event {
            names.push(info.name);
        }
    }
    assert_eq!(names, ["profile.a"]);
    let bound = ObjectStore::<()>::bind(nats.js.clone(), "shared").unwrap();
    assert_eq!(bound.list().await.unwrap().count().await, 2);
}
