use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<id>", when = true)]
    async fn save(&self, id: String) -> String;
}

fn main() {}
