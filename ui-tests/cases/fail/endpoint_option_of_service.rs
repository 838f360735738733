use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[endpoint(version = "1.0.0")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
