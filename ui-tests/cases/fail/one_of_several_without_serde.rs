use nats_service::nats_service;

pub struct Plain {
    pub id: String,
}

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: String, plain: Plain) -> String;
}

fn main() {}
