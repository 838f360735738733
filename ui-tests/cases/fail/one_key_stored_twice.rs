use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "user.<id>")]
    #[kv_store(bucket = "a", key = "user.{id}", name = "copies")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
