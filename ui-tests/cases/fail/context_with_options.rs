//! The mark has no options.
use nats_service::{Context, nats_service};

#[nats_service]
pub trait Profiles {
    async fn save(&self, #[context(headers)] ctx: &Context) -> u64;
}

fn main() {}
