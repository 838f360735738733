use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: impl Into<String>) -> String;
}

fn main() {}
