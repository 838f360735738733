use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_evict(bucket = "profiles", key = "user.<id>", ttl = "1h", write = "never")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
