use nats_service::{Error, Stream, nats_service};

#[nats_service]
pub trait Log {
    #[kv_store(bucket = "lines", key = "line.<from>")]
    async fn tail(&self, from: u64) -> Result<impl Stream<Item = String> + Send, Error>;
}

fn main() {}
