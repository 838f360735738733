//! What a bucket is to be like, and how it is made, checked or changed at start.
//!
//! `settings.rs` knows which setting of a bucket is which of its stream's, `builder.rs` names them, for a program or as an attribute does,
//! `provision.rs` asks the server. What is in a bucket is never looked at here.

mod builder;
mod provision;
mod settings;

pub use builder::{BucketSettings, Origin, Placement, Republish};
pub use provision::ProvisionError;
pub(crate) use provision::{Provisioned, make, provision};
pub use settings::{BucketConflict, Difference};

use std::time::Duration;

/// The settings that an attribute names for its bucket; what it does not name is `None`, and left to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BucketSpec {
    /// `[A-Za-z0-9_-]+`
    pub name: &'static str,
    /// Revisions kept of every key, 1 to 64. KV only.
    pub history: Option<u8>,
    /// How long an entry lives.
    pub ttl: Option<Duration>,
    /// Whether keys may have times to live of their own. KV only.
    pub key_ttl: Option<bool>,
    /// How long the mark stays that an entry leaves when it ends by itself. KV only.
    pub limit_markers: Option<Duration>,
    /// Free text, kept with the bucket.
    pub description: Option<&'static str>,
    /// Copies, 1 to 5.
    pub replicas: Option<u8>,
    /// Where the server keeps it.
    pub storage: Option<Storage>,
    /// The whole bucket's bound, in bytes.
    pub max_bytes: Option<u64>,
    /// One value's bound, in bytes. KV only. The server counts headers too.
    pub max_value_size: Option<u32>,
    /// S2 compression on disk.
    pub compression: Option<bool>,
    /// Transactions: several keys at once. KV only; server 2.12.
    pub atomic: Option<bool>,
    /// Fast ingest: many writes in one batch. KV only; server 2.14.
    pub fast_ingest: Option<bool>,
    /// What to do at start when the bucket is there, or is not.
    pub provision: Provision,
}

/// Where the server keeps a bucket: `storage = ".."`.
///
/// ```
/// # use nats_service::Storage;
/// assert_eq!(Storage::default(), Storage::File);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory: gone with the server.
    Memory,
}

/// What happens to a bucket when a service starts: `provision = ".."`. Data is never touched.
///
/// ```
/// # use nats_service::Provision;
/// assert_eq!(Provision::default(), Provision::Create);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provision {
    /// Make it when it is missing; when it is there and differs in a named setting, refuse to start and say in which.
    #[default]
    Create,
    /// The same, but a difference is a warning in the log.
    Warn,
    /// Make it when it is missing; otherwise change just the settings that the attribute names.
    Update,
    /// Bind only: a missing bucket is an error, a difference is not looked at.
    None,
}
