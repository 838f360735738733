#![deny(deprecated)]
use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "latest")]
    async fn save(&self, id: String) -> String;

    #[kv_store(bucket = "b", key = "latest", shared_key = true)]
    async fn meant(&self, id: String) -> String;
}

fn main() {}
