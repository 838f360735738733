use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(id: String) -> String;
}

fn main() {}
