//! How a bucket stands.

use super::super::bucket::Storage;
use super::super::stream::StreamInfo;
use std::collections::BTreeMap;
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
    /// Keys, deleted ones with a mark included.
    pub keys: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// The newest revision that was given out.
    pub last_revision: u64,
    /// Revisions kept of every key.
    pub history: u8,
    /// How long an entry lives; `None` for ever.
    pub ttl: Option<Duration>,
    /// Whether keys may have times to live of their own.
    pub key_ttl: bool,
    /// How long the mark of an entry stays that ended by itself; `None` for no mark.
    pub limit_markers: Option<Duration>,
    /// Copies.
    pub replicas: u8,
    /// Where the server keeps it.
    pub storage: Storage,
    /// Whether it is compressed.
    pub compressed: bool,
    /// The bucket's bound, in bytes.
    pub max_bytes: Option<u64>,
    /// One value's bound, in bytes, headers included.
    pub max_value_size: Option<u64>,
    /// Whether every replica answers reads.
    pub direct_get: bool,
    /// The bucket that this one is a mirror of.
    pub mirror: Option<String>,
    /// Watches, listings and other consumers at this moment.
    pub consumers: u64,
    /// Pairs that are kept with the bucket; those under `_nats.` are the server's.
    pub metadata: BTreeMap<String, String>,
    /// What it is for.
    pub description: Option<String>,
}

impl KvStatus {
    /// How full the bucket is, from 0 to 1; `None` where it has no bound.
    #[must_use]
    pub fn fullness(&self) -> Option<f64> {
        let bound = self.max_bytes?;
        // So many bytes that a `f64` rounds them are no matter here.
        Some(self.bytes as f64 / bound as f64)
    }
}

impl From<StreamInfo> for KvStatus {
    fn from(info: StreamInfo) -> Self {
        let StreamInfo { config, state, .. } = info;
        Self {
            values: state.messages,
            keys: state.num_subjects,
            bytes: state.bytes,
            last_revision: state.last_seq,
            history: u8::try_from(config.max_msgs_per_subject).unwrap_or(u8::MAX),
            ttl: config.ttl(),
            key_ttl: config.allow_msg_ttl,
            limit_markers: config.limit_markers(),
            max_value_size: u64::try_from(config.max_msg_size)
                .ok()
                .filter(|&bound| bound > 0),
            direct_get: config.allow_direct,
            mirror: config
                .mirror
                .as_ref()
                .map(|mirror| mirror.bucket().to_owned()),
            consumers: state.consumer_count,
            replicas: config.num_replicas,
            storage: config.storage(),
            compressed: config.compressed(),
            max_bytes: config.max_bytes(),
            metadata: config.metadata,
            description: config.description,
        }
    }
}
