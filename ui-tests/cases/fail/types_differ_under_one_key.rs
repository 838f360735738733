use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "user.<id>")]
    async fn save(&self, id: String) -> String;
    #[kv_store(bucket = "a", key = "user.<name>")]
    async fn other(&self, name: String) -> u64;

    #[kv_store(bucket = "a", key = "report.<name>")]
    async fn third(&self, name: String) -> u8;
}

fn main() {}
