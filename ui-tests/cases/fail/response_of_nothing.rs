use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<response.id>")]
    async fn save(&self, id: String) -> Result<(), nats_service::Error>;
}

fn main() {}
