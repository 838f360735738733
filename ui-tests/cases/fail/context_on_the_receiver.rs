//! The mark is on the service.
use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(#[context] &self, id: u64) -> u64;
}

fn main() {}
