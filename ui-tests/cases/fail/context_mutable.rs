//! A context is shared.
use nats_service::{Context, nats_service};

#[nats_service]
pub trait Profiles {
    async fn save(&self, #[context] ctx: &mut Context, id: u64) -> u64;
}

fn main() {}
