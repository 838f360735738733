use nats_service::{Stream, nats_service};

#[nats_service]
pub trait Log {
    async fn append(&self, lines: impl Stream<Item = &str> + Send) -> u64;
}

fn main() {}
