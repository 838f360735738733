use nats_service::nats_service;

#[nats_service(name = "a" version = "1.0.0")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
