use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user:<id>")]
    async fn load(&self, id: u64) -> String;
}

fn main() {}
