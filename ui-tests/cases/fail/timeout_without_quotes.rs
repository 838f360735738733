use nats_service::nats_service;

#[nats_service(timeout = 5s)]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
