use nats_service::nats_service;

#[nats_service]
pub async fn save() {}

fn main() {}
