use nats_service::{Stream, nats_service};

#[nats_service]
pub trait Log {
    async fn merge(
        &self,
        left: impl Stream<Item = String> + Send,
        right: impl Stream<Item = String> + Send,
    ) -> u64;
}

fn main() {}
