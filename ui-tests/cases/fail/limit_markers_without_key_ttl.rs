use nats_service::nats_service;

#[nats_service]
pub trait Leases {
    #[kv_store(bucket = "leases", key = "of.<id>", key_ttl = false, limit_markers = "1m")]
    async fn lease(&self, id: String) -> String;
}

fn main() {}
