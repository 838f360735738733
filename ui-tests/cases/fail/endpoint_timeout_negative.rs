use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[endpoint(timeout = "-5s")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
