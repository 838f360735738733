use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "one.<id>", history = 5, ttl = "1h")]
    async fn save(&self, id: String) -> String;
    #[kv_store(bucket = "a", key = "two.<id>", history = 10, ttl = "60m")]
    async fn other(&self, id: String) -> String;
}

fn main() {}
