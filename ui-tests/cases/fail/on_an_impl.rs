use nats_service::nats_service;

pub struct Profiles;

#[nats_service]
impl Profiles {
    pub async fn save(&self) {}
}

fn main() {}
