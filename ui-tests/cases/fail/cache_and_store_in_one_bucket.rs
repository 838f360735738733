use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "user.<id>", ttl = "1h")]
    #[kv_cache(bucket = "a", key = "cached.<id>", ttl = "10m", name = "cached")]
    async fn find(&self, id: String) -> String;
}

fn main() {}
