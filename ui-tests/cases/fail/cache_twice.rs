use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_cache(bucket = "a", key = "user.<id>", ttl = "10m")]
    #[kv_cache(bucket = "b", key = "user.<id>", ttl = "1h", name = "longer")]
    async fn find(&self, id: String) -> String;
}

fn main() {}
