use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn stores(&self, id: String) -> String;
}

fn main() {}
