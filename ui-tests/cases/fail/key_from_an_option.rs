use nats_service::nats_service;

#[nats_service::message]
pub struct Request {
    id: Option<String>,
}

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<id>")]
    async fn save(&self, request: Request) -> String;
}

fn main() {}
