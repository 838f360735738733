use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[endpoint(timeout = "1s")]
    #[endpoint(subject = "x")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
