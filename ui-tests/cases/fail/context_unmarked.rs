//! The mark is missing.
use nats_service::{Context, nats_service};

#[nats_service]
pub trait Profiles {
    async fn save(&self, ctx: &Context, id: u64) -> u64;
}

fn main() {}
