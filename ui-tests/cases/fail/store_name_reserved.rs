use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "<id>", name = "new")]
    async fn save(&self, id: String) -> String;

    #[kv_store(bucket = "b", key = "<id>", name = "new-ones")]
    async fn change(&self, id: String) -> String;
}

fn main() {}
