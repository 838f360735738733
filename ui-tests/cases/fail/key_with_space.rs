use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "us er.<id>")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
