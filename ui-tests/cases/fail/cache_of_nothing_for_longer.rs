use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_cache(bucket = "a", key = "user.<id>", ttl = "10m", cache_none = "1h")]
    async fn find(&self, id: String) -> Option<String>;
}

fn main() {}
