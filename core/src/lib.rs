//! Annotate a Rust trait. Get a NATS micro service with typed dispatch, a typed client, and its answers kept in
//! JetStream KV or Object Store.

#[doc(hidden)]
pub mod __private;
mod client;
mod service;
mod store;
mod wire;

pub use async_nats;
pub use serde;

pub use client::{Call, CallError, Reply};
pub use service::{Running, Server, ShutdownError, ShutdownReport, StartError};
pub use store::{
    Any, BucketConflict, Change, Difference, DrainReport, Entries, Entry, FailedWrite, FailureHook,
    KeyError, KeyFilter, KeyNames, KeyRule, KeyToken, KvKey, KvSelection, KvStatus, KvStore,
    ObjectEvent, ObjectInfo, ObjectKey, ObjectList, ObjectReader, ObjectSelection, ObjectStatus,
    ObjectStore, ObjectWatch, Operation, Provision, ProvisionError, Storage, StoreError,
    StoredObject, Watch, WatchBuilder, WatchEvent, WriteError, WriterStats, check_key,
};
pub use wire::codec::{Codec, CodecError};
pub use wire::error::{Code, Error, ServiceError};
pub use wire::spec::WriteMode;

pub use nats_service_macros::{
    ServiceError, endpoint, kv_evict, kv_store, message, nats_service, object_evict, object_store,
};
