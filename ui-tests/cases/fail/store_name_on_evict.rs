use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_evict(bucket = "a", key = "<id>", name = "gone")]
    async fn delete(&self, id: String) -> String;
}

fn main() {}
