//! The engine: typed buckets of JetStream KV and Object Store, and the writer that keeps a service's answers.
//!
//! It knows nothing of services and clients, and is complete without the macro: a program that wants only a typed
//! bucket starts here.

mod bucket;
mod error;
mod key;
pub(crate) mod kv;
pub(crate) mod object;
pub(crate) mod persist;

pub use bucket::{BucketConflict, BucketSpec, Difference, Provision, ProvisionError, Storage};
pub(crate) use bucket::{Provisioned, provision};
pub use error::StoreError;
pub use key::{
    Any, Capture, CaptureForm, KeyError, KeyFilter, KeyRule, KeySource, KeyTemplate, KeyToken,
    Keys, Segment, check_key,
};
pub use kv::{KvKey, KvSelection, KvStore};
pub use object::{ObjectKey, ObjectSelection, ObjectStore};
pub use persist::{DrainReport, FailedWrite, FailureHook, WriteError, WriterStats};
