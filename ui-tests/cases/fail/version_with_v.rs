use nats_service::nats_service;

#[nats_service(version = "v1.0.0")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
