use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    const LIMIT: usize;
    const FINE: usize = 3;
    async fn save(&self) -> String;
}

fn main() {}
