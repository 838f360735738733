use nats_service::nats_service;

#[nats_service]
#[kv_store(bucket = "profiles", key = "<id>")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
