use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[endpoint(rename = "2nd")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
