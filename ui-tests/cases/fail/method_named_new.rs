use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn new(&self, id: String) -> String;
}

fn main() {}
