use nats_service::nats_service;

#[nats_service]
pub struct Profiles {
    id: String,
}

fn main() {}
