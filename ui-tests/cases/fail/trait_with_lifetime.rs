use nats_service::nats_service;

#[nats_service]
pub trait Profiles<'a> {
    async fn save(&self, value: &'a str) -> String;
}

fn main() {}
