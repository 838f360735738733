use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_cache(bucket = "a", key = "user.<id>", ttl = "10m")]
    async fn find(&self, id: String) -> Result<(), nats_service::Error>;
}

fn main() {}
