//! How a bucket stands.

use super::super::bucket::Storage;
use super::super::stream::StreamInfo;
use std::time::Duration;

/// How a key-value bucket stands, at the moment it was asked.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), history: 5, ..Default::default() }).await?;
/// let store = nats_service::KvStore::<u16>::bind(js, "ports")?;
/// store.key("http")?.put(&80).await?;
/// let status = store.status().await?;
/// assert_eq!((status.values, status.history, status.ttl), (1, 5, None));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvStatus {
    /// Stored revisions of all keys, deletion markers included.
    pub values: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// The newest revision that was given out.
    pub last_revision: u64,
    /// Revisions kept of every key.
    pub history: u8,
    /// How long an entry lives; `None` for ever.
    pub ttl: Option<Duration>,
    /// Copies.
    pub replicas: u8,
    /// Where the server keeps it.
    pub storage: Storage,
    /// Whether it is compressed.
    pub compressed: bool,
    /// The bucket's bound, in bytes.
    pub max_bytes: Option<u64>,
    /// What it is for.
    pub description: Option<String>,
}

impl From<StreamInfo> for KvStatus {
    fn from(info: StreamInfo) -> Self {
        let StreamInfo { config, state, .. } = info;
        Self {
            values: state.messages,
            bytes: state.bytes,
            last_revision: state.last_seq,
            history: u8::try_from(config.max_msgs_per_subject).unwrap_or(u8::MAX),
            ttl: config.ttl(),
            replicas: config.num_replicas,
            storage: config.storage(),
            compressed: config.compressed(),
            max_bytes: config.max_bytes(),
            description: config.description,
        }
    }
}
