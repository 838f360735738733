use nats_service::nats_service;

#[nats_service]
pub unsafe trait Profiles {
    async fn save(&self) -> String;
}

fn main() {}
