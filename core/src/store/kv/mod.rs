//! Typed key-value buckets: `$KV.<bucket>.<key>` in the stream `KV_<bucket>` (ADR-8).
//!
//! Reading and writing one key is in `key`, what a read promises in `read`, times to live in `ttl`; many keys are in `many` and
//! `selection`, changes in `watch`, subjects in `layout`. What a bucket is to be like is elsewhere.

mod entry;
mod key;
mod layout;
mod many;
mod read;
mod selection;
mod status;
mod transaction;
mod ttl;
#[cfg(feature = "view")]
mod view;
mod watch;
mod writer;

pub use entry::{Change, Entry, Operation};
pub use key::KvKey;
pub use many::{GetMany, ManyEntries, Snapshot};
pub use read::{Newer, ReadLevel};
pub use selection::{Entries, KeyNames, KvSelection};
pub use status::KvStatus;
pub use transaction::{
    Committed, Outcome, Transaction, TransactionConflict, TransactionError, UnknownOutcome,
};
pub use ttl::WithTtl;
#[cfg(feature = "view")]
pub use view::{View, ViewChanges, ViewSnapshot, ViewStatus};
pub use watch::{Watch, WatchBuilder, WatchEvent};
pub use writer::{KvWriter, KvWriterBuilder};

pub(crate) use entry::{entry_headers, is_put};
pub(crate) use layout::Layout;

use super::consumer::{Deliveries, Options, OrderedConsumer, READ_HEARTBEAT, Start};
use super::error::StoreError;
use super::key::{KeyTemplate, check_key, everything};
use super::stream::{Stream, check_bucket};
use crate::wire::codec::Codec;
use crate::wire::spec::{StoreKind, StoreSpec};
use async_nats::jetstream::Context;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A typed key-value bucket.
///
/// It is a handle: cheap to clone, and nothing is sent before a value is read or written. Every value is written with
/// its codec in the `Content-Type` header, and read by what that header says.
///
/// Bound by [`bind`](Self::bind) it is the whole bucket. A method's store has only the keys of that method's form in its
/// [`keys`](Self::keys), [`entries`](Self::entries), [`watch`](Self::watch) and [`all`](Self::all); keys and prefixes that
/// are given whole are of the bucket.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let nats = nats_service::async_nats::connect(server.url()).await?;
/// use nats_service::KvStore;
/// use nats_service::async_nats::jetstream;
///
/// let js = jetstream::new(nats);
/// # js.create_key_value(jetstream::kv::Config { bucket: "ports".into(), history: 5, ..Default::default() }).await?;
/// let ports = KvStore::<u16>::bind(js, "ports")?;
/// let http = ports.key("http")?;
/// let revision = http.put(&80).await?;
/// http.update(&8080, revision).await?;
/// assert_eq!(http.get().await?.map(|entry| entry.into_value()), Some(8080));
/// # Ok(()) }
/// ```
pub struct KvStore<T> {
    stream: Stream,
    layout: Arc<Layout>,
    codec: Codec,
    template: Option<&'static KeyTemplate>,
    marker: PhantomData<fn() -> T>,
}

impl<T> Clone for KvStore<T> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream.clone(),
            layout: self.layout.clone(),
            ..*self
        }
    }
}

impl<T> fmt::Debug for KvStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvStore")
            .field("bucket", &self.bucket())
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}

impl<T> KvStore<T> {
    /// Binds to a bucket by its name. Nothing is sent: whether it exists, the first request shows.
    ///
    /// Only [`open`](Self::open) knows what a mirror is a copy of. The two come to the same for every other bucket, and for a
    /// mirror of the same name in another domain that only reads.
    ///
    /// # Errors
    /// [`StoreError::BucketName`] when the name is none.
    pub fn bind(js: Context, bucket: impl Into<String>) -> Result<Self, StoreError> {
        let bucket = bucket.into();
        check_bucket(&bucket)?;
        Ok(Self::new(js, &bucket, Codec::default(), None))
    }

    /// Binds to a bucket that is there, and asks the server what it is: a mirror is then read under its origin's subjects, and
    /// written to through its origin.
    ///
    /// # Errors
    /// [`StoreError::BucketName`] when the name is none, [`StoreError::BucketNotFound`] when there is no such bucket.
    pub async fn open(js: Context, bucket: impl Into<String>) -> Result<Self, StoreError> {
        let mut store = Self::bind(js, bucket)?;
        let info = store.stream.info().await?;
        store.layout = Arc::new(Layout::of(store.bucket(), info.config.mirror.as_ref()));
        Ok(store)
    }

    /// Makes a bucket that is missing; one that is there is compared in what is named, and left alone or changed as
    /// [`BucketSettings::provision`](super::BucketSettings::provision) says. It is then as if it had been opened.
    ///
    /// # Errors
    /// See [`ProvisionError`](super::ProvisionError).
    pub async fn create(
        js: Context,
        settings: super::BucketSettings,
    ) -> Result<Self, super::ProvisionError> {
        let (bound, config) = super::bucket::make(&js, StoreKind::Kv, &settings).await?;
        let mut store = Self::new(js, &bound.name, Codec::default(), None);
        store.layout = Arc::new(Layout::of_config(&bound.name, &config));
        Ok(store)
    }

    /// Writes values in this codec, and reads those that do not say what they are in it. JSON unless it is set.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The same bucket, as one of other values.
    fn retyped<V>(self) -> KvStore<V> {
        KvStore {
            stream: self.stream,
            layout: self.layout,
            codec: self.codec,
            template: self.template,
            marker: PhantomData,
        }
    }

    fn new(
        js: Context,
        bucket: &str,
        codec: Codec,
        template: Option<&'static KeyTemplate>,
    ) -> Self {
        Self {
            stream: Stream::new(js, StoreKind::Kv, bucket),
            layout: Arc::new(Layout::plain(bucket)),
            codec,
            template,
            marker: PhantomData,
        }
    }

    #[doc(hidden)]
    pub fn __from_spec(js: Context, spec: &'static StoreSpec, codec: Codec) -> Self {
        Self::new(js, spec.bucket.name, codec, Some(&spec.key))
    }

    #[doc(hidden)]
    pub fn __key(&self, values: &[&dyn super::KeyToken]) -> Result<KvKey<T>, StoreError> {
        match self.template {
            Some(template) => Ok(KvKey::new(self.clone(), template.key(values)?)),
            // Generated code always has a template; a bare store takes its first value as the whole key.
            None => self.key(
                values
                    .first()
                    .map(|v| v.key_token().into_owned())
                    .unwrap_or_default(),
            ),
        }
    }

    #[doc(hidden)]
    pub fn __selection(
        &self,
        values: &[&dyn super::KeyFilter],
    ) -> Result<KvSelection<T>, StoreError> {
        let filter = match self.template {
            Some(template) => template.filter(values)?,
            None => ">".to_owned(),
        };
        Ok(KvSelection::new(self.clone(), filter))
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        self.stream.bucket()
    }

    /// One key, given whole.
    ///
    /// # Errors
    /// [`StoreError::Key`] when it breaks a rule of KV keys: tokens over `[-_/=A-Za-z0-9]`, joined by single dots.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// let store = nats_service::KvStore::<u16>::bind(js, "ports")?;
    /// assert!(store.key("eu.http").is_ok());
    /// assert!(store.key("eu.*").is_err());
    /// # Ok(()) }
    /// ```
    pub fn key(&self, key: impl Into<String>) -> Result<KvKey<T>, StoreError> {
        let key = key.into();
        check_key(&key)?;
        Ok(KvKey::new(self.clone(), key))
    }

    /// The keys under `prefix`: those that begin with it and a dot.
    ///
    /// # Errors
    /// [`StoreError::Key`] when the prefix is no key itself, so that no wildcard gets in.
    ///
    /// ```
    /// # use futures_util::TryStreamExt;
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
    /// let store = nats_service::KvStore::<u16>::bind(js, "ports")?;
    /// store.key("eu.http")?.put(&80).await?;
    /// store.key("us.http")?.put(&81).await?;
    /// let keys: Vec<String> = store.under("eu")?.keys().await?.try_collect().await?;
    /// assert_eq!(keys, ["eu.http"]);
    /// # Ok(()) }
    /// ```
    pub fn under(&self, prefix: &str) -> Result<KvSelection<T>, StoreError> {
        check_key(prefix)?;
        Ok(KvSelection::new(self.clone(), format!("{prefix}.>")))
    }

    /// All keys of the store: the bucket's, or for a method's store those of its form.
    #[must_use]
    pub fn all(&self) -> KvSelection<T> {
        let filter = self.template.map(everything);
        KvSelection::new(self.clone(), filter.unwrap_or_else(|| ">".to_owned()))
    }

    /// The keys of [`all`](Self::all) that have a value, in the order of their last writes.
    ///
    /// They are streamed: a bucket of any size can be listed.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn keys(&self) -> Result<KeyNames, StoreError> {
        self.all().keys().await
    }

    /// The latest values of [`all`](Self::all) keys, in the order of their last writes. One that cannot be decoded is an error item, and the others
    /// go on.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn entries(&self) -> Result<Entries<T>, StoreError> {
        self.all().entries().await
    }

    /// Watches [`all`](Self::all) keys: await it, after setting what it is to bring.
    pub fn watch(&self) -> WatchBuilder<T> {
        self.all().watch()
    }

    /// Watches these keys, given whole; a key that is none is an error when the watch is awaited, and so is an empty list.
    pub fn watch_many<K: Into<String>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> WatchBuilder<T> {
        let mut checked: Vec<String> = Vec::new();
        for key in keys {
            let key = key.into();
            if let Err(error) = check_key(&key) {
                return WatchBuilder::new(self.clone(), Err(error.into()));
            }
            // The server refuses a filter that is there twice.
            if !checked.contains(&key) {
                checked.push(key);
            }
        }
        if checked.is_empty() {
            // No filter at all would mean every key.
            let error = check_key("").err().map(StoreError::from);
            return WatchBuilder::new(self.clone(), error.map_or(Ok(Vec::new()), Err));
        }
        WatchBuilder::new(self.clone(), Ok(checked))
    }

    /// How the whole bucket stands now: asked from the server each time.
    ///
    /// # Errors
    /// When the bucket is not there, or the server does not answer.
    pub async fn status(&self) -> Result<KvStatus, StoreError> {
        Ok(self.stream.info().await?.into())
    }

    fn subject(&self, key: &str) -> String {
        format!("{}{key}", self.layout.stored())
    }

    /// The key of a subject of this bucket.
    fn key_of<'s>(&self, subject: &'s str) -> &'s str {
        subject
            .strip_prefix(self.layout.stored())
            .unwrap_or(subject)
    }

    /// The same bucket, whatever its values are.
    fn untyped(&self) -> KvStore<()> {
        KvStore {
            stream: self.stream.clone(),
            layout: self.layout.clone(),
            codec: self.codec,
            template: self.template,
            marker: PhantomData,
        }
    }

    /// What is in the bucket under these keys or filters now.
    async fn read(
        &self,
        filter: &str,
        start: Start,
        headers_only: bool,
    ) -> Result<Deliveries, StoreError> {
        let options = Options {
            filters: vec![self.subject(filter)],
            start,
            headers_only,
            heartbeat: READ_HEARTBEAT,
        };
        let consumer = OrderedConsumer::open(self.stream.clone(), options).await?;
        Ok(consumer.into_stream())
    }
}
