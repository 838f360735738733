use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "<id>")]
    #[object_store(bucket = "b", key = "<id>")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
