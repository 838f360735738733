use nats_service::nats_service;

#[nats_service(subject = "")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
