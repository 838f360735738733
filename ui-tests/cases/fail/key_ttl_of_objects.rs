use nats_service::nats_service;

#[nats_service]
pub trait Leases {
    #[object_store(bucket = "leases", key = "of.<id>", key_ttl = true)]
    async fn lease(&self, id: String) -> String;
}

fn main() {}
