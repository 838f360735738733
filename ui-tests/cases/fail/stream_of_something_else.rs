use nats_service::nats_service;

#[nats_service]
pub trait Log {
    async fn tail(&self, from: u64) -> impl Iterator<Item = String> + Send;
}

fn main() {}
