use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: &'static str) -> String;
}

fn main() {}
