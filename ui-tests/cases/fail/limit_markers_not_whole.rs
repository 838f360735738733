use nats_service::nats_service;

#[nats_service]
pub trait Leases {
    #[kv_store(bucket = "leases", key = "of.<id>", limit_markers = "1500ms")]
    async fn lease(&self, id: String) -> String;
}

fn main() {}
