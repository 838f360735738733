use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "users", key = "user.<id>", ttl = "30m")]
    async fn save(&self, id: String) -> String;

    #[kv_cache(bucket = "users", key = "user.<id>", ttl = "10m", stale_on_error = "1h")]
    async fn find(&self, id: String) -> String;
}

fn main() {}
