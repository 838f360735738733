//! Settings belong to the bucket: what one method says holds for all, and nobody makes a bucket that he only removes from.
#![deny(warnings)]

use nats_service::{Provision, nats_service};
use std::time::Duration;

type Count = u64;

#[nats_service]
pub trait Things {
    #[kv_store(bucket = "things", key = "a.<id>", history = 5)]
    async fn one(&self, id: u8) -> u64;

    // The same type under another name, and keys that cannot be told apart: allowed.
    #[kv_store(bucket = "things", key = "a.<name>", ttl = "60m", provision = "update", write = "never")]
    async fn two(&self, name: u8) -> Count;

    // Another type, and keys that can.
    #[kv_store(bucket = "things", key = "b.<id>", ttl = "1h")]
    #[kv_evict(bucket = "things", key = "a.<id>", write = "before_reply")]
    #[kv_evict(bucket = "things", key = "a.<response.0>")]
    #[object_evict(bucket = "things", key = "<id>")]
    async fn three(&self, id: u8) -> (String, u8);

    // Two that exclude each other may share everything.
    #[cfg(any())]
    #[endpoint(subject = "four")]
    #[kv_store(bucket = "four", key = "<id>", history = 1)]
    async fn four_here(&self, id: u8) -> u8;

    #[cfg(not(any()))]
    #[endpoint(subject = "four")]
    #[kv_store(bucket = "four", key = "<id>", history = 2)]
    async fn four_there(&self, id: u8) -> u16;
}

fn main() {
    let methods = ThingsContract::SPEC.methods;
    let bucket = methods[0].stores[0].bucket;
    assert_eq!((bucket.history, bucket.ttl), (Some(5), Some(Duration::from_secs(3600))));
    assert_eq!(bucket.provision, Provision::Update);
    assert_eq!(methods[1].stores[0].bucket, bucket);
    assert_eq!(methods[2].stores[0].bucket, bucket);
    assert_eq!(methods[2].stores[1].bucket, bucket);
    assert_eq!(methods[2].stores[2].key.source, "a.<response.0>");

    // An object store of the same name is another bucket, and this service does not fill it.
    let objects = methods[2].stores[3].bucket;
    assert_eq!((objects.name, objects.history, objects.provision), ("things", None, Provision::None));
    assert_eq!(methods[3].name, "four_there");
    assert_eq!(methods[3].stores[0].bucket.history, Some(2));
}
