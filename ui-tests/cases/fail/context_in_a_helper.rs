//! A helper is called by the service itself.
use nats_service::{Context, nats_service};

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: u64) -> u64;

    async fn look(&self, #[context] ctx: &Context) -> u64 {
        self.save(ctx.endpoint().len() as u64).await
    }
}

fn main() {}
