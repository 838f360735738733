//! The pipelined writer of a bucket, for whoever writes more than one value at a time. What it promises is `store/persist`'s
//! business; here it gets types, and a life without a service around it.

use super::KvStore;
use crate::store::bucket::Provisioned;
use crate::store::error::{StoreError, unavailable};
use crate::store::key::check_key;
use crate::store::persist::{
    DrainReport, FailedWrite, FailureHook, Permit, Write, WriteAction, WriteError, Writer,
    WriterLimits, WriterStats, Writers,
};
use crate::telemetry::Trace;
use crate::wire::moment::bounded;
use crate::wire::spec::StoreKind;
use bytes::Bytes;
use serde::Serialize;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A writer before it starts: set its bounds, and await it.
#[must_use = "a writer begins when it is awaited"]
pub struct KvWriterBuilder<T> {
    store: KvStore<T>,
    limits: WriterLimits,
    hook: Option<FailureHook>,
}

/// Writes many values, pipelined: the acknowledgements of many are on their way at once, on one inbox.
///
/// [`put`](Self::put) and [`delete`](Self::delete) return when a write is *accepted*; from then on it is tried until it is
/// stored, over broken connections and leader elections. Writes of one key are stored in the order in which they were
/// accepted, repeats included, and where the bucket keeps one revision of a key, a newer value replaces one that still
/// waits. What can never be stored (a value larger than the bucket takes) is given to the hook. A repeat is harmless within the
/// bucket's duplicate window, as every write has a message id; or many go in one batch, where the bucket has
/// [`fast_ingest`](crate::BucketSettings::fast_ingest), and none is repeated before it is known that it is not stored.
///
/// Clones are the same writer. Dropping the last one lets it finish what it has; [`drain`](Self::drain) waits for that, and
/// says what is not stored.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "readings".into(), ..Default::default() }).await?;
/// use nats_service::KvStore;
/// use std::time::Duration;
///
/// let readings = KvStore::<u64>::bind(js, "readings")?;
/// let writer = readings.writer().max_pending(10_000, 8 << 20).await?;
/// for sensor in 0..1_000 {
///     writer.put(format!("sensor.{sensor}"), &(sensor * 7)).await?;
/// }
/// let report = writer.drain(Duration::from_secs(10)).await;
/// assert!(report.unwritten.is_empty());
/// assert_eq!(writer.stats().written, 1_000);
/// # Ok(()) }
/// ```
pub struct KvWriter<T> {
    store: KvStore<T>,
    writer: Writer,
}

impl<T> Clone for KvWriter<T> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            writer: self.writer.clone(),
        }
    }
}

impl<T> fmt::Debug for KvWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvWriter")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for KvWriterBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvWriterBuilder")
            .field("bucket", &self.store.bucket())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<T> KvStore<T> {
    /// A pipelined writer for this bucket: await it, after setting its bounds.
    pub fn writer(&self) -> KvWriterBuilder<T> {
        KvWriterBuilder {
            store: self.clone(),
            limits: WriterLimits::default(),
            hook: None,
        }
    }
}

impl<T> KvWriterBuilder<T> {
    /// How many writes may be pending (65,536), and with how many bytes in all (64 MiB): [`KvWriter::put`] waits for room.
    pub fn max_pending(mut self, writes: usize, bytes: usize) -> Self {
        self.limits.max_writes = writes.max(1);
        self.limits.max_bytes = bytes.max(1);
        self
    }

    /// How many writes are sent before one of them has to be acknowledged (1,024).
    pub fn window(mut self, writes: usize) -> Self {
        self.limits.window = writes.max(1);
        self
    }

    /// Is called with every write that can never be stored, and with those that a drain had no time for. The call blocks
    /// the writer: hand the value on, do not work on it.
    pub fn on_failed_write(mut self, hook: impl Fn(&FailedWrite) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }
}

impl<T: 'static> IntoFuture for KvWriterBuilder<T> {
    type Output = Result<KvWriter<T>, StoreError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self {
            store,
            limits,
            hook,
        } = self;
        Box::pin(async move {
            let info = store.stream.info().await?;
            let bucket = Provisioned {
                kind: StoreKind::Kv,
                name: store.bucket().to_owned(),
                created: false,
                history: info.config.max_msgs_per_subject,
                put_prefix: store.subject(""),
                through_api: false,
                fast_ingest: info.config.allow_batched,
            };
            let writers = Writers::new(store.stream.js.clone(), limits, hook);
            let writer = writers.writer(&bucket).await;
            let writer = writer.map_err(|error| unavailable(error.to_string()))?;
            Ok(KvWriter { store, writer })
        })
    }
}

impl<T: Serialize> KvWriter<T> {
    /// Accepts a value; waits while there is no room.
    ///
    /// # Errors
    /// When the key is none, the value cannot be encoded, or the writer was drained.
    pub async fn put(&self, key: impl Into<String>, value: &T) -> Result<(), StoreError> {
        let write = self.write(key.into(), WriteAction::Put(self.encode(value)?))?;
        let room = self.room().await?;
        self.writer.submit(write, room);
        Ok(())
    }

    /// Accepts a value, and waits until it is stored: its revision. Many of these at once share the pipeline.
    ///
    /// # Errors
    /// As of [`put`](Self::put); and [`StoreError::Timeout`] when it was not acknowledged within `patience`: it may be
    /// stored all the same, and is not tried again.
    pub async fn put_and_wait(
        &self,
        key: impl Into<String>,
        value: &T,
        patience: Duration,
    ) -> Result<u64, StoreError> {
        let deadline = Instant::now() + bounded(patience);
        let write = self.write(key.into(), WriteAction::Put(self.encode(value)?))?;
        let room = self.writer.reserve(patience).await;
        let room = room.map_err(|_| StoreError::Timeout)?;
        let stored = self.writer.submit_and_wait(write, room, deadline).await;
        stored.map_err(|error| match error {
            WriteError::Refused { code, description } => StoreError::Server { code, description },
            WriteError::Closed => closed(),
            WriteError::NotStored { .. } | WriteError::Unknown { .. } => StoreError::Timeout,
        })
    }

    fn encode(&self, value: &T) -> Result<Bytes, StoreError> {
        Ok(self.store.codec.encode(value)?)
    }
}

impl<T> KvWriter<T> {
    /// Accepts the deletion of a key; waits while there is no room.
    ///
    /// # Errors
    /// When the key is none, or the writer was drained.
    pub async fn delete(&self, key: impl Into<String>) -> Result<(), StoreError> {
        let write = self.write(key.into(), WriteAction::Delete)?;
        let room = self.room().await?;
        self.writer.submit(write, room);
        Ok(())
    }

    /// What it is doing: how much waits, how much was written, how old the oldest is.
    #[must_use]
    pub fn stats(&self) -> WriterStats {
        self.writer.stats()
    }

    /// Accepts no more, waits until everything is stored, and ends the writer, clones included. What is not stored within
    /// `patience` is in the report, whole.
    pub async fn drain(&self, patience: Duration) -> DrainReport {
        self.writer.drain(Instant::now() + bounded(patience)).await
    }

    fn write(&self, key: String, action: WriteAction) -> Result<Write, StoreError> {
        check_key(&key)?;
        Ok(Write {
            key,
            action,
            content_type: self.store.codec.content_type(),
            trace: Trace::default(),
        })
    }

    async fn room(&self) -> Result<Permit, StoreError> {
        if let Ok(room) = self.writer.try_reserve() {
            return Ok(room);
        }
        // For as long as it takes: whoever wants a bound puts a time-out around the call, which then has accepted nothing.
        let room = self.writer.reserve(Duration::MAX).await;
        room.map_err(|_| closed())
    }
}

fn closed() -> StoreError {
    unavailable(WriteError::Closed.to_string())
}
