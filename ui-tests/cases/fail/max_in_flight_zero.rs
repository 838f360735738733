//! Nothing would ever run.
use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[endpoint(max_in_flight = 0)]
    async fn save(&self, id: u64) -> u64;
}

fn main() {}
