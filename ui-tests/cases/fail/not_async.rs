use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    fn save(&self, id: String) -> String;
}

fn main() {}
