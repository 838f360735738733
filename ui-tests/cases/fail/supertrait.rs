use nats_service::nats_service;

#[nats_service]
pub trait Profiles: Send + Clone {
    async fn save(&self) -> String;
}

fn main() {}
