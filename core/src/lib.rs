//! Annotate a Rust trait. Get a NATS micro service with typed dispatch, a typed client, and its answers kept in
//! JetStream KV or Object Store.
//!
//! The trait is the contract. Its methods become endpoints of a service that every NATS tool can discover, methods of a client,
//! and, where an attribute says so, typed stores of what was answered: to read, watch, compare and swap and roll back,
//! without the service.
//!
//! ```
//! use nats_service::async_nats::{self, jetstream};
//! use nats_service::{Server, nats_service};
//! # use std::time::Duration;
//!
//! /// Greets people.
//! #[nats_service(version = "1.0.0")]
//! pub trait Greeter {
//!     /// Says it, and keeps what it said under `said.<name>`.
//!     #[kv_store(bucket = "greetings", key = "said.<name>", write = "before_reply")]
//!     async fn hello(&self, name: String) -> String;
//! }
//!
//! struct Polite;
//!
//! impl Greeter for Polite {
//!     async fn hello(&self, name: String) -> String {
//!         format!("Good day, {name}!")
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let private = nats_service_testkit::TestServer::start().await?;
//! # let url = private.url();
//! let nats = async_nats::connect(url).await?;
//! let js = jetstream::new(nats.clone());
//! let server = Server::new(nats.clone()).with_jetstream(js.clone());
//! let running = server.serve(GreeterServer::new(Polite)).start().await?;
//!
//! let greeter = GreeterClient::new(nats).with_jetstream(js);
//! assert_eq!(greeter.hello("Ada".to_string()).await?, "Good day, Ada!");
//! let kept = greeter.stores()?.hello().at("Ada")?.get().await?;
//! assert_eq!(kept.map(|entry| entry.into_value()).as_deref(), Some("Good day, Ada!"));
//!
//! running.shutdown(Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is where
//!
//! | for | there is |
//! |---|---|
//! | the contract | [`macro@nats_service`], [`macro@endpoint`], [`macro@message`] |
//! | keeping answers | [`macro@kv_store`], [`macro@object_store`], [`macro@kv_cache`], [`macro@kv_evict`], [`macro@object_evict`]; [`WriteMode`], [`SingleFlight`], [`Provision`], [`Storage`] |
//! | errors | [`derive@ServiceError`], [`Error`], [`Code`], [`Cause`] |
//! | serving | [`Server`], [`Running`]; [`StartError`], [`ShutdownReport`], [`FailedWrite`], [`StoredWrite`], [`WriterStats`] |
//! | the call behind a request | [`Context`], [`Caller`], [`HeaderError`] |
//! | what happens to a connection | [`ConnectionEvents`], [`ConnectionEvent`], [`ConnectionCounts`], [`Denial`] |
//! | calling | a generated client, [`Call`], [`Reply`], [`Retry`], [`Many`], [`CallError`] |
//! | finding services | [`Discover`]; [`ServiceInfo`], [`ServiceStats`] |
//! | streams | [`StreamCall`], [`Streaming`], [`UploadCall`], [`StreamBreak`]; [`Stream`] |
//! | answers of any size | [`macro@object_store`], [`ByteStream`] |
//! | KV buckets | [`KvStore`], [`KvKey`], [`KvSelection`], [`Entry`], [`Change`]; [`WatchBuilder`], [`Watch`], [`WatchEvent`] |
//! | object buckets | [`ObjectStore`], [`ObjectKey`], [`ObjectSelection`], [`ObjectInfo`], [`ObjectReader`] |
//! | several keys at once | [`Transaction`], [`Committed`], [`TransactionError`], [`TransactionConflict`], [`UnknownOutcome`], [`Outcome`] |
//! | local copies of KV buckets | [`View`], [`ViewSnapshot`], [`ViewChanges`], [`ViewStatus`] |
//! | what goes wrong there | [`StoreError`], [`KeyError`], [`ProvisionError`] |
//! | keys | [`KeyToken`], [`KeyFilter`], [`Any`], [`check_key`] |
//! | bodies | [`Codec`], and with the feature `codecs` `Format` |
//!
//! [`async_nats`], [`serde`] and the trait [`Stream`] are re-exported in the versions that are used here.
//!
//! # Features
//!
//! | feature | for | default |
//! |---|---|---|
//! | `view` | `KvStore::view()`: local copies of buckets, read without a lock | on |
//! | `tower` | layers of tower around calls: [`Server::layer`] and `layer` of a generated server or client | off |
//! | `codecs` | encodings of your own: `codec = my::Cbor` for a type that implements `Format` | off |
//! | `msgpack` | `codec = "msgpack"`: bodies and entries in MessagePack, with field names | off |
//! | `metrics` | counters, gauges and histograms through the facade `metrics`: `METRICS` lists them | off |
//! | `otel` | W3C trace context in requests, calls and stored entries, through OpenTelemetry | off |
//! | `schema` | `ProfilesContract::asyncapi()` and `contract`: the contract as an AsyncAPI document, and its test | off |

#[doc(hidden)]
pub mod __private;
mod client;
mod connection;
#[cfg(feature = "schema")]
pub mod contract;
#[cfg(feature = "tower")]
pub mod layer;
#[cfg(not(feature = "tower"))]
mod layer;
mod service;
mod store;
mod streaming;
mod telemetry;
mod wire;

pub use async_nats;
pub use futures_util::Stream;
#[cfg(feature = "schema")]
pub use schemars;
pub use serde;

pub use client::{
    Answers, Argument, Call, CallError, CallFuture, Discover, DiscoverError, EndpointInfo,
    EndpointStats, EveryInstance, InstanceAnswer, Many, OneInstance, Reply, Retry, ServiceInfo,
    ServicePing, ServiceStats,
};
pub use client::{StreamCall, Streaming, UploadCall};
pub use connection::{ConnectionCounts, ConnectionEvent, ConnectionEvents, Denial};
pub use service::{Running, Server, ShutdownError, ShutdownReport, StartError};
pub use store::{
    Any, BucketConflict, BucketSettings, Change, Difference, DrainReport, Entries, Entry,
    FailedWrite, FailureHook, GetMany, KeyError, KeyFilter, KeyNames, KeyRule, KeyToken, KvKey,
    KvSelection, KvStatus, KvStore, KvWriter, KvWriterBuilder, ManyEntries, Newer, ObjectEvent,
    ObjectInfo, ObjectKey, ObjectList, ObjectReader, ObjectSelection, ObjectStatus, ObjectStore,
    ObjectWatch, Operation, Origin, Placement, Provision, ProvisionError, ReadLevel, Republish,
    Snapshot, Storage, StoreError, StoredObject, StoredWrite, TtlRule, Watch, WatchBuilder,
    WatchEvent, WithTtl, WriteError, WriterStats, check_key,
};
pub use store::{
    Committed, ObjectLink, ObjectMeta, Outcome, Progress, RemovedOrphans, Transaction,
    TransactionConflict, TransactionError, UnknownOutcome, Upload, UploadToken, UploadTokenError,
};
#[cfg(feature = "view")]
pub use store::{View, ViewChanges, ViewSnapshot, ViewStatus};
pub use streaming::StreamBreak;
#[cfg(feature = "metrics")]
pub use telemetry::{METRICS, Metric, MetricKind};
pub use wire::cause::Cause;
pub use wire::codec::{Codec, CodecError};
#[cfg(feature = "codecs")]
pub use wire::codec::{CodecTaken, CustomCodec, Format, FormatError};
pub use wire::context::{Caller, Context};
pub use wire::error::{Code, Error, ServiceError};
pub use wire::header::HeaderError;
pub use wire::spec::{SingleFlight, WriteMode};
pub use wire::stream::ByteStream;
pub use wire::subject::PrefixError;

/// ```no_run
/// use nats_service::{Error, Server, message, nats_service};
///
/// #[message]
/// pub struct SaveProfile {
///     pub id: String,
///     pub email: String,
/// }
///
/// #[message]
/// pub struct Profile {
///     pub email: String,
/// }
///
/// /// User profiles.
/// #[nats_service(version = "1.0.0")]
/// pub trait Profiles {
///     /// Saves a profile. Its answer is kept under `user.<id>`.
///     #[kv_store(bucket = "user_profiles", key = "user.<id>", history = 5, ttl = "1h")]
///     async fn save_profile(&self, request: SaveProfile) -> Result<Profile, Error>;
///
///     /// How many there are.
///     async fn count(&self) -> u64;
/// }
///
/// struct Postgres;
///
/// impl Profiles for Postgres {
///     async fn save_profile(&self, request: SaveProfile) -> Result<Profile, Error> {
///         Ok(Profile { email: request.email })
///     }
///
///     async fn count(&self) -> u64 {
///         1
///     }
/// }
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let nats = nats_service::async_nats::connect("localhost:4222").await?;
/// let js = nats_service::async_nats::jetstream::new(nats.clone());
/// let server = Server::new(nats.clone()).with_jetstream(js.clone());
/// let running = server.serve(ProfilesServer::new(Postgres)).start().await?;
///
/// let profiles = ProfilesClient::new(nats).with_jetstream(js);
/// let request = SaveProfile { id: "abc".into(), email: "a@b.c".into() };
/// let saved: Profile = profiles.save_profile(request).await?;
/// let entry = profiles.stores()?.save_profile().at("abc")?;
/// # Ok(())
/// # }
/// ```
///
#[doc(inline)]
pub use nats_service_macros::nats_service;

/// ```
/// # use nats_service::nats_service;
/// #[nats_service]
/// trait Reports {
///     #[endpoint(subject = "render.pdf", timeout = "1m", metadata(slow = "yes"))]
///     async fn render(&self, id: u64) -> Vec<u8>;
///
///     // `new` is a function of the client already.
///     #[endpoint(rename = "create", queue_group = false)]
///     async fn new(&self, title: String) -> u64;
/// }
/// assert_eq!(ReportsContract::SPEC.methods[0].subject, "reports.render.pdf");
/// assert_eq!(ReportsContract::SPEC.methods[1].name, "create");
/// ```
///
#[doc(inline)]
pub use nats_service_macros::endpoint;

/// ```
/// # use nats_service::{Any, StoreError, message, nats_service};
/// # #[message] struct Profile { id: u64 }
/// #[nats_service]
/// trait Profiles {
///     #[kv_store(bucket = "user_profiles", key = "user.<region>.<mail:escaped>", history = 5, write = "before_reply")]
///     async fn save(&self, region: &str, mail: String) -> Profile;
///
///     // The id is made by the service.
///     #[kv_store(bucket = "user_profiles", key = "id.<response.id>")]
///     async fn create(&self, mail: String) -> Profile;
/// }
///
/// fn read(stores: ProfilesStores) -> Result<(), StoreError> {
///     let one = stores.save().at("eu", "a@b.c")?;
///     let all_of_eu = stores.save().matching("eu", Any)?;
///     let created = stores.create().at(7)?;
///     Ok(())
/// }
/// ```
///
#[doc(inline)]
pub use nats_service_macros::kv_store;

/// ```
/// # use nats_service::{Error, nats_service};
/// #[nats_service]
/// trait Rates {
///     #[kv_cache(bucket = "rates", key = "rate.<currency>", ttl = "10m", stale_on_error = "1h")]
///     async fn rate(&self, currency: String) -> Result<f64, Error>;
/// }
/// # assert!(RatesContract::SPEC.methods[0].stores[0].cache.is_some());
/// ```
#[doc(inline)]
pub use nats_service_macros::kv_cache;

/// ```
/// # use nats_service::nats_service;
/// #[nats_service]
/// trait Profiles {
///     #[kv_store(bucket = "user_profiles", key = "user.<id>")]
///     async fn save(&self, id: u64, name: String) -> String;
///
///     #[kv_evict(bucket = "user_profiles", key = "user.<id>")]
///     async fn delete(&self, id: u64);
/// }
/// ```
///
#[doc(inline)]
pub use nats_service_macros::kv_evict;

/// ```
/// # use nats_service::nats_service;
/// #[nats_service]
/// trait Reports {
///     #[object_store(bucket = "reports", key = "report.<path..>", ttl = "30d", max_bytes = "1GiB")]
///     async fn render(&self, path: &str) -> Vec<u8>;
/// }
/// ```
///
#[doc(inline)]
pub use nats_service_macros::object_store;

/// ```
/// # use nats_service::nats_service;
/// #[nats_service]
/// trait Reports {
///     #[object_evict(bucket = "reports", key = "report.<path..>")]
///     async fn remove(&self, path: &str);
/// }
/// ```
///
#[doc(inline)]
pub use nats_service_macros::object_evict;

/// ```
/// use nats_service::{Codec, message};
///
/// #[message]
/// #[serde(rename_all = "camelCase")]
/// struct SaveProfile {
///     full_name: String,
/// }
///
/// let bytes = Codec::Json.encode(&SaveProfile { full_name: "A B".into() })?;
/// assert_eq!(&bytes[..], br#"{"fullName":"A B"}"#);
/// # Ok::<(), nats_service::CodecError>(())
/// ```
///
#[doc(inline)]
pub use nats_service_macros::message;

/// ```
/// use nats_service::{Code, ServiceError};
///
/// #[derive(Debug, PartialEq, ServiceError)]
/// #[service_error(code = InvalidArgument)]
/// enum OrderError {
///     #[service_error(message = "{quantity} is more than {limit}", code = OutOfRange)]
///     TooMany { quantity: u32, limit: u32 },
///     #[service_error(message = "no such article: {0}")]
///     Article(String),
/// }
///
/// let error = OrderError::TooMany { quantity: 12, limit: 10 };
/// let wire = error.to_wire();
/// assert_eq!((wire.code(), wire.message()), (Code::OutOfRange, "12 is more than 10"));
/// assert_eq!(wire.details()["limit"], 10);
/// assert_eq!(OrderError::from_wire(wire), Ok(error));
/// ```
///
#[doc(inline)]
pub use nats_service_macros::ServiceError;
