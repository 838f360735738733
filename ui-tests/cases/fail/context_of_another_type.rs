//! The mark is on a part of the body.
use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(&self, #[context] id: &str) -> u64;
}

fn main() {}
