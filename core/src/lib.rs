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

pub use client::{Call, CallError};
pub use service::{Running, Server, StartError};
pub use store::{
    Any, KeyError, KeyFilter, KeyRule, KeyToken, KvKey, KvSelection, KvStore, ObjectKey,
    ObjectSelection, ObjectStore, Provision, Storage, StoreError, check_key,
};
pub use store::{
    Change, Entries, Entry, KeyNames, KvStatus, ObjectEvent, ObjectInfo, ObjectList, ObjectReader,
    ObjectStatus, ObjectWatch, Operation, StoredObject, Watch, WatchBuilder, WatchEvent,
};
pub use wire::codec::{Codec, CodecError};
pub use wire::error::{Code, Error, ServiceError};
pub use wire::spec::WriteMode;
