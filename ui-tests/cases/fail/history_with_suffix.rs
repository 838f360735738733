use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "<id>", history = 5k)]
    async fn save(&self, id: String) -> String;
}

fn main() {}
