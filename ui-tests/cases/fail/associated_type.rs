use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    type Answer;
    async fn save(&self) -> String;
}

fn main() {}
