//! A call has one context.
use nats_service::{Context, nats_service};

#[nats_service]
pub trait Profiles {
    async fn save(&self, #[context] a: &Context, id: u64, #[context] b: &Context) -> u64;
}

fn main() {}
