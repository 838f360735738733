use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<price>")]
    async fn save(&self, price: f64) -> String;
}

fn main() {}
