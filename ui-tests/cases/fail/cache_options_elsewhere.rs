use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "user.<id>", stale_on_error = "10m")]
    async fn save(&self, id: String) -> String;

    #[kv_evict(bucket = "a", key = "user.<id>", single_flight = "cluster")]
    async fn forget(&self, id: String) -> String;

    #[kv_cache(bucket = "b", key = "user.<id>", ttl = "10m", history = 5)]
    async fn find(&self, id: String) -> String;
}

fn main() {}
