use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[endpoint(subjct = "x")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
