//! The engine: typed buckets of JetStream KV and Object Store, and the writer that keeps a service's answers.
//!
//! It knows nothing of services and clients, and is complete without the macro: a program that wants only a typed
//! bucket starts here.

mod batch;
mod bucket;
mod consumer;
mod error;
mod filter;
mod key;
pub(crate) mod kv;
mod multi;
pub(crate) mod object;
pub(crate) mod persist;
mod shared;
pub(crate) mod stream;

pub use bucket::{
    BucketConflict, BucketSettings, BucketSpec, Difference, Origin, Placement, Provision,
    ProvisionError, Republish, Storage,
};
pub(crate) use bucket::{Provisioned, provision};
pub use error::{StoreError, TtlRule};
pub use key::{
    Any, Capture, CaptureForm, KeyError, KeyFilter, KeyRule, KeySource, KeyTemplate, KeyToken,
    Keys, Segment, check_key,
};
pub(crate) use kv::is_put;
pub use kv::{
    Change, Entries, Entry, GetMany, KeyNames, KvKey, KvSelection, KvStatus, KvStore, KvWriter,
    KvWriterBuilder, ManyEntries, Newer, Operation, ReadLevel, Snapshot, Watch, WatchBuilder,
    WatchEvent, WithTtl,
};
pub use kv::{
    Committed, Outcome, Transaction, TransactionConflict, TransactionError, UnknownOutcome,
};
#[cfg(feature = "view")]
pub use kv::{View, ViewChanges, ViewSnapshot, ViewStatus};
pub use object::{
    ObjectEvent, ObjectInfo, ObjectKey, ObjectLink, ObjectList, ObjectMeta, ObjectReader,
    ObjectSelection, ObjectStatus, ObjectStore, ObjectWatch, Progress, RemovedOrphans,
    StoredObject, Upload, UploadToken, UploadTokenError,
};
pub use persist::{DrainReport, FailedWrite, FailureHook, StoredWrite, WriteError, WriterStats};
