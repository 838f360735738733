use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(&mut self, id: String) -> String;
}

fn main() {}
