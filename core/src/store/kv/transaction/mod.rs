//! Several keys of one bucket at once, all or nothing: an atomic batch of the server (ADR-50, API level 2).
//!
//! What is sent is in `batch`. Conditions are those of single writes: a revision, or that there is no value. Transactions
//! over several buckets are left out, since the server has none.

mod batch;
mod error;

pub use error::{TransactionConflict, TransactionError};

use super::entry::{Kind, entry_headers};
use super::key::{marker, purge_marker};
use super::{KvKey, KvStore};
use crate::store::error::StoreError;
use crate::store::stream::{Stored, Stream, back_off};
use async_nats::header::{NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use async_nats::{HeaderMap, HeaderValue};
use batch::Attempt;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

/// As the server takes it.
const MAX_WRITES: usize = 1000;
/// How long the commit waits for its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long what is on its way may take to be seen, once the server has answered a later request of ours.
const SETTLES: Duration = Duration::from_secs(2);
/// How long the leader of a replicated bucket may take from an agreement to its own store.
const APPLIED: Duration = Duration::from_millis(50);
/// More than one only where others write and delete a key that is to be created, at the same time, and where the server holds
/// too many batches.
const ATTEMPTS: u32 = 6;
/// Keys that are looked up at once.
const LOOK_UPS: usize = 32;

/// Several writes to one bucket that are stored together or not at all, each with a condition of its own if it needs one.
///
/// The keys may hold values of different types. Nobody sees some of the writes without the others in the bucket; a watch
/// brings them one after the other, with revisions in a row. The bucket has to allow it (`atomic = true`), and the server
/// has to know it: 2.12 or later. At most 1,000 writes, each key once.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_stream(nats_service::async_nats::jetstream::stream::Config {
/// #     name: "KV_bank".into(), subjects: vec!["$KV.bank.>".into()], max_messages_per_subject: 1,
/// #     allow_direct: true, allow_rollup: true, allow_atomic_publish: true, ..Default::default() }).await?;
/// use nats_service::{KvStore, TransactionError};
///
/// let accounts = KvStore::<i64>::bind(js.clone(), "bank")?;
/// let notes = KvStore::<String>::bind(js, "bank")?;
/// let (ada, bob) = (accounts.key("account.ada")?, accounts.key("account.bob")?);
/// let (a, b) = (ada.put(&100).await?, bob.put(&0).await?);
///
/// let committed = accounts.transaction()
///     .update(&ada, &70, a)
///     .update(&bob, &30, b)
///     .create(&notes.key("transfer.1")?, &"30 from ada to bob".to_owned())
///     .commit()
///     .await?;
/// assert_eq!(committed.revision_of("account.bob"), Some(b + 2));
///
/// // Once more with the revisions of before: nothing happens, and it is said why.
/// match accounts.transaction().update(&ada, &40, a).put(&bob, &60).commit().await {
///     Err(TransactionError::Conflict { conflicts }) => {
///         assert_eq!((conflicts[0].key.as_str(), conflicts[0].current), ("account.ada", b + 1));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok(()) }
/// ```
#[must_use = "nothing is written before `commit()`"]
pub struct Transaction {
    stream: Stream,
    /// What stands before a key in a write, which is the same for all keys of the bucket.
    prefix: String,
    writes: Vec<Pending>,
    keys: HashSet<String>,
    timeout: Duration,
    /// The first mistake; said by `commit`.
    error: Option<TransactionError>,
}

/// One write of it.
#[derive(Debug, Clone)]
struct Pending {
    key: String,
    /// As the stream has it, and as it is published to.
    subject: String,
    publish: String,
    headers: HeaderMap,
    value: Bytes,
    expected: Option<u64>,
    /// It is to be where there is no value, which may be over the mark of a deletion.
    creates: bool,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.writes.iter().map(|write| &write.key);
        f.debug_struct("Transaction")
            .field("bucket", &self.stream.bucket())
            .field("keys", &keys.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl<T> KvStore<T> {
    /// A transaction on this bucket, with keys of any type in it. Nothing is sent before it is committed.
    pub fn transaction(&self) -> Transaction {
        Transaction {
            stream: self.stream.clone(),
            prefix: self.layout.write(&self.stream.js, ""),
            writes: Vec::new(),
            keys: HashSet::new(),
            timeout: TIMEOUT,
            error: None,
        }
    }
}

impl Transaction {
    /// Writes the value, whatever is there.
    pub fn put<V: Serialize>(self, key: &KvKey<V>, value: &V) -> Self {
        self.value(key, value, None, false)
    }

    /// Writes the value if the key has none: never written, deleted, purged or expired.
    pub fn create<V: Serialize>(self, key: &KvKey<V>, value: &V) -> Self {
        self.value(key, value, Some(0), true)
    }

    /// Writes the value if `revision` is the key's current one.
    pub fn update<V: Serialize>(self, key: &KvKey<V>, value: &V, revision: u64) -> Self {
        self.value(key, value, Some(revision), false)
    }

    /// Deletes the key; older revisions stay in its history.
    pub fn delete<V>(self, key: &KvKey<V>) -> Self {
        self.add(key, marker("DEL"), Bytes::new(), None, false)
    }

    /// Deletes the key if `revision` is its current one.
    pub fn delete_if<V>(self, key: &KvKey<V>, revision: u64) -> Self {
        self.add(key, marker("DEL"), Bytes::new(), Some(revision), false)
    }

    /// Deletes the key and its whole history.
    pub fn purge<V>(self, key: &KvKey<V>) -> Self {
        self.add(key, purge_marker(), Bytes::new(), None, false)
    }

    /// Deletes the key and its whole history if `revision` is its current one.
    pub fn purge_if<V>(self, key: &KvKey<V>, revision: u64) -> Self {
        self.add(key, purge_marker(), Bytes::new(), Some(revision), false)
    }

    /// How long `commit` waits for the server's answer, before the outcome counts as unknown: 5 seconds unless it is set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn value<V: Serialize>(
        mut self,
        key: &KvKey<V>,
        value: &V,
        expected: Option<u64>,
        creates: bool,
    ) -> Self {
        let codec = key.store.codec;
        match codec.encode(value) {
            Ok(bytes) => self.add(key, entry_headers(codec), bytes, expected, creates),
            Err(error) => {
                self.error.get_or_insert(StoreError::from(error).into());
                self
            }
        }
    }

    fn add<V>(
        mut self,
        key: &KvKey<V>,
        headers: HeaderMap,
        value: Bytes,
        expected: Option<u64>,
        creates: bool,
    ) -> Self {
        let stream = &key.store.stream;
        let publish = key.store.layout.write(&stream.js, &key.key);
        let other = stream.name() != self.stream.name() || !publish.starts_with(&self.prefix);
        if other {
            self.error.get_or_insert(TransactionError::OtherBucket {
                key: key.key.clone(),
                bucket: stream.bucket().to_owned(),
                wanted: self.stream.bucket().to_owned(),
            });
        } else if !self.keys.insert(key.key.clone()) {
            let key = key.key.clone();
            self.error.get_or_insert(TransactionError::KeyTwice { key });
        } else {
            self.writes.push(Pending {
                key: key.key.clone(),
                subject: key.subject(),
                publish,
                headers,
                value,
                expected,
                creates,
            });
        }
        self
    }

    /// Stores all of it, or nothing.
    ///
    /// Dropped half-way it is committed or not, and never in part.
    ///
    /// # Errors
    /// [`TransactionError`] says what was wrong; nothing was written then, but for [`TransactionError::Unknown`].
    pub async fn commit(self) -> Result<Committed, TransactionError> {
        let Self {
            stream,
            mut writes,
            timeout,
            error,
            ..
        } = self;
        if let Some(error) = error {
            return Err(error);
        }
        if writes.len() > MAX_WRITES {
            let count = writes.len();
            return Err(TransactionError::TooMany {
                count,
                most: MAX_WRITES,
            });
        }
        if writes.is_empty() {
            return Ok(Committed { writes: Vec::new() });
        }
        let mut ended = TransactionError::Conflict {
            conflicts: Vec::new(),
        };
        for attempt in 0..ATTEMPTS {
            // Each time: a server that knows no batches would store the messages one by one, and a connection may lead to
            // another server than before.
            let (head, replicated) = allowed(&stream).await?;
            let outcome = UnknownOutcome::of(&stream, &writes, head);
            match batch::attempt(&stream, &writes, outcome, timeout).await? {
                Attempt::Committed(last) => return Ok(Committed::of(&writes, last)),
                Attempt::GivenUp(error) => {
                    ended = error;
                    let (base, max) = (Duration::from_millis(20), Duration::from_millis(500));
                    tokio::time::sleep(back_off(attempt, base, max)).await;
                }
                Attempt::Conflict => {
                    ended = TransactionError::Conflict {
                        conflicts: Vec::new(),
                    };
                    if replicated {
                        // It was refused for what is agreed upon, which takes a moment to be applied.
                        tokio::time::sleep(APPLIED).await;
                    }
                    let Ok(conflicts) = look(&stream, &mut writes).await else {
                        // It is a conflict all the same, whoever may not look or gets no answer.
                        break;
                    };
                    if !conflicts.is_empty() {
                        return Err(TransactionError::Conflict { conflicts });
                    }
                }
            }
        }
        Err(ended)
    }
}

/// Makes sure that the bucket takes batches; its last revision, and whether it has replicas.
async fn allowed(stream: &Stream) -> Result<(u64, bool), TransactionError> {
    let info = stream.info().await?;
    if info.config.allow_atomic {
        return Ok((info.state.last_seq, info.config.num_replicas > 1));
    }
    match stream.api_level().await {
        Ok(level) if level < 2 => Err(TransactionError::ServerTooOld { level }),
        // Whoever may not ask that hears of what can be changed.
        _ => Err(TransactionError::NotAllowed {
            bucket: stream.bucket().to_owned(),
        }),
    }
}

/// The newest messages of these writes' keys, from the leader.
async fn newest(stream: &Stream, subjects: Vec<String>) -> Result<Vec<Option<Stored>>, StoreError> {
    let asked = subjects.into_iter().map(|subject| async move {
        let subject = subject;
        stream.leaders_last(&subject).await
    });
    futures_util::stream::iter(asked)
        .buffered(LOOK_UPS)
        .try_collect()
        .await
}

/// Which conditions do not hold. A mark of a deletion where a value is to be created is taken as the new condition.
async fn look(
    stream: &Stream,
    writes: &mut [Pending],
) -> Result<Vec<TransactionConflict>, StoreError> {
    let conditional: Vec<&mut Pending> = writes
        .iter_mut()
        .filter(|write| write.expected.is_some())
        .collect();
    let subjects = conditional
        .iter()
        .map(|write| write.subject.clone())
        .collect();
    let newest = newest(stream, subjects).await?;
    let mut conflicts = Vec::new();
    for (write, last) in conditional.into_iter().zip(newest) {
        let current = last.as_ref().map_or(0, |last| last.sequence);
        let is_value = last.is_some_and(|last| Kind::of(&last.headers) == Kind::Put);
        if write.creates && !is_value {
            write.expected = Some(current);
        } else if write.creates || write.expected != Some(current) {
            conflicts.push(TransactionConflict {
                key: write.key.clone(),
                expected: if write.creates {
                    0
                } else {
                    write.expected.unwrap_or(0)
                },
                current,
            });
        }
    }
    Ok(conflicts)
}

/// A transaction that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    writes: Vec<(String, u64)>,
}

impl Committed {
    fn of(writes: &[Pending], last: u64) -> Self {
        Self::numbered(writes.iter().map(|write| write.key.clone()).collect(), last)
    }

    /// Revisions are given out in a row.
    fn numbered(keys: Vec<String>, last: u64) -> Self {
        let first = last.saturating_sub(keys.len() as u64) + 1;
        Self {
            writes: keys.into_iter().zip(first..).collect(),
        }
    }

    /// The revision of this key's write.
    #[must_use]
    pub fn revision_of(&self, key: &str) -> Option<u64> {
        let of_key = |(it, _): &&(String, u64)| it == key;
        self.writes
            .iter()
            .find(of_key)
            .map(|(_, revision)| *revision)
    }

    /// Every key with its revision, in the order in which they were written.
    pub fn writes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.writes
            .iter()
            .map(|(key, revision)| (&**key, *revision))
    }

    /// The newest revision, which a view can wait for; 0 of a transaction without a write.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.writes.last().map_or(0, |(_, revision)| *revision)
    }
}

/// A commit without an answer, and what it takes to find out.
#[derive(Clone)]
pub struct UnknownOutcome {
    stream: Stream,
    /// Unique; every message of the batch carries it.
    batch: String,
    keys: Vec<String>,
    subjects: Vec<String>,
    /// The bucket's last revision from before.
    head: u64,
}

impl fmt::Debug for UnknownOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnknownOutcome")
            .field("bucket", &self.stream.bucket())
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// What became of a commit without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was stored, all of it.
    Committed(Committed),
    /// Nothing of it was stored, and nothing will be.
    NotCommitted,
    /// Others have written every one of its keys since, so that no trace is left either way.
    Overwritten,
}

impl UnknownOutcome {
    fn of(stream: &Stream, writes: &[Pending], head: u64) -> Self {
        let inbox = stream.js.client().new_inbox();
        Self {
            stream: stream.clone(),
            // What makes an inbox unique makes the batch unique.
            batch: inbox.rsplit('.').next().unwrap_or(&inbox).to_owned(),
            keys: writes.iter().map(|write| write.key.clone()).collect(),
            subjects: writes.iter().map(|write| write.subject.clone()).collect(),
            head,
        }
    }

    /// Looks at the keys: every message of a batch says which one it came with, and a key that is still as old as the
    /// transaction was not written by it. That it did not happen is said after a second look, two seconds later, when
    /// nothing of it can be on its way any more.
    ///
    /// # Errors
    /// When the bucket cannot be read: it is still unknown.
    pub async fn find_out(&self) -> Result<Outcome, StoreError> {
        // The answer to a request of ours shows that all we sent before it has arrived, too.
        if let Some(outcome) = self
            .look()
            .await?
            .filter(|outcome| *outcome != Outcome::NotCommitted)
        {
            return Ok(outcome);
        }
        tokio::time::sleep(SETTLES).await;
        Ok(self.look().await?.unwrap_or(Outcome::Overwritten))
    }

    async fn look(&self) -> Result<Option<Outcome>, StoreError> {
        let newest = newest(&self.stream, self.subjects.clone()).await?;
        let mut untouched = false;
        for last in &newest {
            let Some(last) = last else {
                untouched = true;
                continue;
            };
            let header = |name| last.headers.get(name).map(HeaderValue::as_str);
            if header(NATS_BATCH_ID) == Some(&*self.batch) {
                let place = header(NATS_BATCH_SEQUENCE).and_then(|place| place.parse::<u64>().ok());
                let rest = (self.keys.len() as u64).saturating_sub(place.unwrap_or(0));
                let committed = Committed::numbered(self.keys.clone(), last.sequence + rest);
                return Ok(Some(Outcome::Committed(committed)));
            }
            untouched |= last.sequence <= self.head;
        }
        Ok(untouched.then_some(Outcome::NotCommitted))
    }
}
