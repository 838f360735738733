use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_cache(bucket = "a", key = "user.<id>", ttl = "10m", single_flight = "clustr", write = "never", cache_none = true)]
    async fn find(&self, id: String) -> String;

    #[kv_cache(bucket = "b", key = "user.<id>", ttl = 600, lookup_timeout = "0ms")]
    async fn other(&self, id: String) -> String;
}

fn main() {}
