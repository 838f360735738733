use nats_service::nats_service;

pub struct Plain {
    pub id: String,
}

#[nats_service]
pub trait Profiles {
    async fn save(&self, request: Plain) -> String;
}

fn main() {}
