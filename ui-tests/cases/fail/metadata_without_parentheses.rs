use nats_service::nats_service;

#[nats_service(metadata = "owner")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
