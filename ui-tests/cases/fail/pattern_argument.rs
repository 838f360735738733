use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(&self, (a, b): (String, String)) -> String;
}

fn main() {}
