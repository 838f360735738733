use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_cach(bucket = "a", key = "user.<id>", ttl = "10m")]
    async fn find(&self, id: String) -> String;
}

fn main() {}
