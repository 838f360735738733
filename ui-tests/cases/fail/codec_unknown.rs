use nats_service::nats_service;

#[nats_service(codec = "protobuf")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
