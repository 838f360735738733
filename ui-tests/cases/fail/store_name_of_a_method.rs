use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "<id>")]
    async fn save(&self, id: String) -> String;

    #[kv_store(bucket = "b", key = "<id>", name = "save")]
    async fn change(&self, id: String) -> String;
}

fn main() {}
