//! One key: read it, write it, compare and swap, its history, and back.
//!
//! What a read promises is in `read`, times to live are in `ttl`.

use super::super::consumer::{Delivery, Start};
use super::super::error::{Refusal, StoreError};
use super::super::stream::Stored;
use super::entry::{Kind, own_headers};
use super::{Change, Entry, KvStore, WatchBuilder, entry_headers};
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_ROLLUP};
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;

/// One key of a typed bucket.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), history: 5, ..Default::default() }).await?;
/// use nats_service::{KvStore, StoreError};
///
/// let http = KvStore::<u16>::bind(js, "ports")?.key("http")?;
/// let first = http.create(&80).await?;
/// let second = http.update(&8080, first).await?;
///
/// // Somebody who still holds the first revision is told the current one.
/// match http.update(&81, first).await {
///     Err(StoreError::Conflict { current, .. }) => assert_eq!(current, Some(second)),
///     other => panic!("{other:?}"),
/// }
///
/// http.roll_back(first).await?;
/// assert_eq!(http.get().await?.map(|entry| entry.into_value()), Some(80));
/// assert_eq!(http.history().await?.len(), 3);
/// # Ok(()) }
/// ```
pub struct KvKey<T> {
    pub(super) store: KvStore<T>,
    pub(super) key: String,
}

impl<T> Clone for KvKey<T> {
    fn clone(&self) -> Self {
        Self::new(self.store.clone(), self.key.clone())
    }
}

impl<T> fmt::Debug for KvKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvKey")
            .field("bucket", &self.store.bucket())
            .field("key", &self.key)
            .finish()
    }
}

impl<T> KvKey<T> {
    pub(super) fn new(store: KvStore<T>, key: String) -> Self {
        Self { store, key }
    }

    /// The whole key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.key
    }

    pub(super) fn subject(&self) -> String {
        self.store.subject(&self.key)
    }

    /// From any replica.
    pub(super) async fn last(&self) -> Result<Option<Stored>, StoreError> {
        self.store.stream.last(&self.subject()).await
    }

    /// The newest message, after a refusal that said this much of it: never an older one than the leader refused by.
    async fn current(&self, told: Option<u64>) -> Result<Option<Stored>, StoreError> {
        match told {
            // Told that there is none, or not told.
            Some(0) | None => self.store.stream.leaders_last(&self.subject()).await,
            Some(revision) => self.at_least(revision).await,
        }
    }

    /// Publishes, and waits for the acknowledgement: the revision. `expected` makes it conditional.
    pub(super) async fn write(
        &self,
        mut headers: HeaderMap,
        value: Bytes,
        expected: Option<u64>,
    ) -> Result<u64, StoreError> {
        if let Some(expected) = expected {
            headers.insert(
                NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
                HeaderValue::from(expected),
            );
        }
        let store = &self.store;
        let subject = store.layout.write(&store.stream.js, &self.key);
        match store.stream.publish(subject, headers, value).await {
            Ok(revision) => Ok(revision),
            Err(Refusal::WrongLastSequence(told)) => {
                let current = match told {
                    Some(current) => Some(current),
                    // On replicated buckets the server does not say.
                    None => {
                        let current = self.current(None).await.ok();
                        current.map(|last| last.map_or(0, |last| last.sequence))
                    }
                };
                let (key, expected) = (self.key.clone(), expected.unwrap_or(0));
                Err(match current {
                    // Revisions only grow, so this server lacks what is known here. It has no say, and another one may have
                    // taken the write.
                    Some(current) if current > 0 && current < expected => StoreError::Behind {
                        key,
                        expected,
                        current,
                    },
                    current => StoreError::Conflict {
                        key,
                        expected,
                        current,
                    },
                })
            }
            Err(Refusal::Ttl(rule)) => Err(StoreError::Ttl {
                key: self.key.clone(),
                rule,
            }),
            Err(refusal) => Err(store.stream.explain(refusal).await),
        }
    }

    /// Deletes the key; older revisions stay in its history. Deleting what is not there is no error.
    ///
    /// # Errors
    /// When the write is refused, or its outcome unknown.
    ///
    /// Returns the revision of the deletion.
    pub async fn delete(&self) -> Result<u64, StoreError> {
        self.write(marker("DEL"), Bytes::new(), None).await
    }

    /// Deletes the key if `revision` is its current one.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not.
    pub async fn delete_if(&self, revision: u64) -> Result<u64, StoreError> {
        self.write(marker("DEL"), Bytes::new(), Some(revision))
            .await
    }

    /// Deletes the key and its whole history; a mark of it stays. [`with_ttl`](Self::with_ttl) lets the mark end, too.
    ///
    /// # Errors
    /// When the write is refused, or its outcome unknown.
    pub async fn purge(&self) -> Result<u64, StoreError> {
        self.write(purge_marker(), Bytes::new(), None).await
    }

    /// The same, if `revision` is the key's current one.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not.
    pub async fn purge_if(&self, revision: u64) -> Result<u64, StoreError> {
        self.write(purge_marker(), Bytes::new(), Some(revision))
            .await
    }

    /// Writes where there is no value. Over the mark of a deletion it is an update of that mark, with the same headers.
    pub(super) async fn create_bytes(
        &self,
        headers: HeaderMap,
        value: Bytes,
    ) -> Result<u64, StoreError> {
        let mut expected = 0;
        // More than one repetition only where others write and delete the key at the same time.
        for _ in 0..6 {
            let written = self.write(headers.clone(), value.clone(), Some(expected));
            let told = match written.await {
                Err(StoreError::Conflict { current, .. }) => current,
                written => return written,
            };
            match self.current(told).await? {
                Some(last) if Kind::of(&last.headers) == Kind::Put => {
                    return Err(self.exists(Some(last.sequence)));
                }
                Some(marker) => expected = marker.sequence,
                None => expected = 0,
            }
        }
        Err(self.exists(None))
    }

    fn exists(&self, current: Option<u64>) -> StoreError {
        StoreError::Conflict {
            key: self.key.clone(),
            expected: 0,
            current,
        }
    }

    /// Writes the bytes of an earlier revision again, as a new one, unless somebody else writes in between.
    ///
    /// The bytes are copied as they are, so it works for values that this program cannot read.
    ///
    /// # Errors
    /// [`StoreError::RevisionNotFound`] when that revision is gone, is another key's or marks a deletion;
    /// [`StoreError::Conflict`] when another write came in between.
    pub async fn roll_back(&self, revision: u64) -> Result<u64, StoreError> {
        let (stream, subject) = (&self.store.stream, self.subject());
        let earlier = match stream.at(revision, &subject).await? {
            // A replica that lags has not seen it yet.
            None => stream.leaders_at(revision, &subject).await?,
            found => found,
        };
        let earlier = earlier.filter(|stored| Kind::of(&stored.headers) == Kind::Put);
        let Some(earlier) = earlier else {
            return Err(StoreError::RevisionNotFound {
                key: self.key.clone(),
                revision,
            });
        };
        let current = stream.leaders_last(&subject).await?;
        let current = current.map_or(0, |last| last.sequence);
        let headers = own_headers(&earlier.headers);
        self.write(headers, earlier.payload, Some(current)).await
    }

    /// Watches this key: await it, after setting what it is to bring.
    pub fn watch(&self) -> WatchBuilder<T> {
        WatchBuilder::new(self.store.clone(), Ok(vec![self.key.clone()]))
    }
}

impl<T: Serialize> KvKey<T> {
    /// Writes the value, whatever was there: its revision.
    ///
    /// # Errors
    /// When it cannot be encoded, or the write is refused; [`StoreError::Timeout`] leaves the outcome open.
    pub async fn put(&self, value: &T) -> Result<u64, StoreError> {
        self.write_value(value, None).await
    }

    /// Writes the value if the key has none: never written, deleted, purged or expired.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with the current revision when it has one.
    pub async fn create(&self, value: &T) -> Result<u64, StoreError> {
        let codec = self.store.codec;
        let bytes = codec.encode(value)?;
        self.create_bytes(entry_headers(codec), bytes).await
    }

    /// Writes the value if `revision` is the key's current one (compare and swap); 0 stands for "never written".
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with the current revision when it is another.
    pub async fn update(&self, value: &T, revision: u64) -> Result<u64, StoreError> {
        self.write_value(value, Some(revision)).await
    }

    async fn write_value(&self, value: &T, expected: Option<u64>) -> Result<u64, StoreError> {
        let codec = self.store.codec;
        let bytes = codec.encode(value)?;
        self.write(entry_headers(codec), bytes, expected).await
    }
}

impl<T: DeserializeOwned> KvKey<T> {
    /// The current value; `None` when there is none, also after a deletion or an expiry.
    ///
    /// On a replicated bucket any replica answers, and it may lag behind a write that was just acknowledged:
    /// [`read`](Self::read) promises more.
    ///
    /// # Errors
    /// [`StoreError::Undecodable`] when the bytes are no `T`; [`StoreError::BucketNotFound`].
    pub async fn get(&self) -> Result<Option<Entry<T>>, StoreError> {
        match self.last().await? {
            Some(stored) => Entry::read(&self.key, &stored, self.store.codec),
            None => Ok(None),
        }
    }

    /// The value at this revision; `None` when that revision is not of this key, is gone, or marks a deletion.
    ///
    /// # Errors
    /// As [`KvKey::get`].
    pub async fn get_at(&self, revision: u64) -> Result<Option<Entry<T>>, StoreError> {
        match self.store.stream.at(revision, &self.subject()).await? {
            Some(stored) => Entry::read(&self.key, &stored, self.store.codec),
            None => Ok(None),
        }
    }

    /// The revisions that the bucket keeps of this key, oldest first, deletions included.
    ///
    /// # Errors
    /// When the bucket cannot be read. A value that is no `T` is [`Operation::Unreadable`](super::Operation::Unreadable)
    /// in its place, and hides no other.
    pub async fn history(&self) -> Result<Vec<Change<T>>, StoreError> {
        let mut deliveries = self.store.read(&self.key, Start::All, false).await?;
        let mut changes = Vec::new();
        while let Some(delivery) = deliveries.next().await {
            match delivery? {
                Delivery::Message(stored, delta) => {
                    changes.push(Change::read(&self.key, &stored, delta, self.store.codec));
                }
                Delivery::CaughtUp => break,
            }
        }
        Ok(changes)
    }
}

pub(super) fn marker(operation: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", operation);
    headers
}

pub(super) fn purge_marker() -> HeaderMap {
    let mut headers = marker("PURGE");
    headers.insert(NATS_ROLLUP, "sub");
    headers
}
