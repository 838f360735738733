use nats_service::{Stream, nats_service};

#[nats_service]
pub trait Log {
    async fn tail(&self, from: u64) -> impl Stream<Item = String>;
}

fn main() {}
