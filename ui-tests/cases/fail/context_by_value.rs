//! A context is lent.
use nats_service::{Context, nats_service};

#[nats_service]
pub trait Profiles {
    async fn save(&self, #[context] ctx: Context, id: u64) -> u64;
}

fn main() {}
