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
pub use wire::stream::ByteStream;

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
