use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_cache(bucket = "a", key = "<id>")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
