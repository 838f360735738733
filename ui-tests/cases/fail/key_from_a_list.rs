use nats_service::nats_service;

#[nats_service::message]
pub struct Request {
    id: String,
    tags: Vec<String>,
}

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<tags>")]
    async fn save(&self, request: Request) -> String;
}

fn main() {}
