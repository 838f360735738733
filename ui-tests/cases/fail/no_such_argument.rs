use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<nope>.<regoin>")]
    async fn save(&self, region: String, id: String) -> String;
}

fn main() {}
