//! What a read promises: from any replica, at least this revision, from the leader, or proven to be the present.
//!
//! The proof is a write. A leader that is cut off answers reads for some 10 seconds more, and refuses what it need not ask
//! anybody about; only what a majority has written cannot come from the past. So a confirmed read writes a mark under a key
//! that is reserved for such things (`_kv.`, ADR-8), and then reads the key **together with that mark**: whoever has the
//! mark has everything that was acknowledged before it.

use super::super::error::StoreError;
use super::super::multi::{Ask, Multi};
use super::super::stream::{Stored, Stream, back_off};
use super::key::purge_marker;
use super::{Entry, KvKey, KvStore};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long a read waits for what it promises, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(5);
/// The key of the mark. No method of this crate takes such a key, and no listing of any client shows the mark of a purge.
const MARK: &str = "_kv.confirmed";

/// What a read of one key promises, from cheap to dear.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
/// use nats_service::{KvStore, ReadLevel};
///
/// let http = KvStore::<u16>::bind(js, "ports")?.key("http")?;
/// let revision = http.put(&80).await?;
/// for level in [ReadLevel::AtLeast(revision), ReadLevel::Leader, ReadLevel::Confirmed] {
///     let entry = http.read(level).await?.ok_or("gone")?;
///     assert_eq!(entry.revision, revision);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadLevel {
    /// Any replica answers, also a mirror with `mirror_direct`: one round trip, spread over all of them. What was acknowledged
    /// a moment ago may be missing (0.7 to 9.5 % of reads right after a write, on a healthy bucket of three).
    #[default]
    Fast,
    /// Everything up to this revision of the bucket is seen: your own write, with the revision that it returned, or
    /// somebody else's, of whichever key. One round trip where the replica that is asked has it already; else the leader is asked.
    AtLeast(u64),
    /// The leader answers: one round trip. It has all that was acknowledged, unless it has been cut off from the others
    /// and nobody told it: for up to some 10 seconds it then answers with what it knew.
    Leader,
    /// What was acknowledged to anybody before this read began is seen, whatever is cut off: a majority has written since. It
    /// costs a write and a read, fails where no majority answers, needs the right to publish `$KV.<bucket>._kv.confirmed`,
    /// and leaves one mark in the bucket, the same one for all such reads: it counts as a message, takes a revision
    /// each time, and is a purge of `_kv.confirmed` to programs that watch the whole bucket.
    Confirmed,
}

/// What [`KvKey::get_if_newer`] found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Newer<T> {
    /// A newer value.
    Entry(Entry<T>),
    /// Nothing newer: no value was sent.
    Unchanged,
    /// The key was deleted or has ended since, or never was.
    Gone,
}

impl<T: DeserializeOwned> KvKey<T> {
    /// The current value, with this promise; `None` when there is none. It waits up to 5 s for what it promises.
    ///
    /// # Errors
    /// [`StoreError::NotVisible`] when the revision does not become visible, [`StoreError::Timeout`] where no majority
    /// answers; [`StoreError::Unsupported`] for [`ReadLevel::Confirmed`] on a server before 2.11 or a bucket without
    /// direct get; and those of [`KvKey::get`].
    pub async fn read(&self, level: ReadLevel) -> Result<Option<Entry<T>>, StoreError> {
        self.read_within(level, PATIENCE).await
    }

    /// The same, with a bound of its own for the wait.
    ///
    /// # Errors
    /// As [`KvKey::read`].
    pub async fn read_within(
        &self,
        level: ReadLevel,
        patience: Duration,
    ) -> Result<Option<Entry<T>>, StoreError> {
        let stored = match level {
            ReadLevel::Fast => in_time(patience, self.last()).await?,
            ReadLevel::AtLeast(revision) => self.at_least_within(revision, patience).await?,
            ReadLevel::Leader => {
                let subject = self.subject();
                in_time(patience, self.store.stream.leaders_last(&subject)).await?
            }
            ReadLevel::Confirmed => in_time(patience, self.confirmed()).await?,
        };
        match stored {
            Some(stored) => Entry::read(&self.key, &stored, self.store.codec),
            None => Ok(None),
        }
    }

    /// The value, if it is newer than this revision: what a cache asks that holds one. Any replica answers, in one round
    /// trip; nothing is sent of a value that is known.
    ///
    /// # Errors
    /// As [`KvKey::get`].
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
    /// use nats_service::{KvStore, Newer};
    ///
    /// let http = KvStore::<u16>::bind(js, "ports")?.key("http")?;
    /// let known = http.put(&80).await?;
    /// assert!(matches!(http.get_if_newer(known).await?, Newer::Unchanged));
    /// http.put(&8080).await?;
    /// assert!(matches!(http.get_if_newer(known).await?, Newer::Entry(entry) if *entry.value() == 8080));
    /// http.delete().await?;
    /// assert!(matches!(http.get_if_newer(known).await?, Newer::Gone));
    /// # Ok(()) }
    /// ```
    pub async fn get_if_newer(&self, revision: u64) -> Result<Newer<T>, StoreError> {
        let ask = Ask {
            subjects: &[self.subject()],
            from: revision.saturating_add(1),
        };
        let stored = match self.store.stream.multi(ask).await? {
            Multi::Part(mut part) => match part.messages.pop() {
                Some(stored) => stored,
                // There is a message, and it is not newer.
                None if part.seen.is_some() => return Ok(Newer::Unchanged),
                None => return Ok(Newer::Gone),
            },
            Multi::TooMany | Multi::Unsupported => match self.last().await? {
                Some(stored) if stored.sequence > revision => stored,
                Some(_) => return Ok(Newer::Unchanged),
                None => return Ok(Newer::Gone),
            },
        };
        let entry = Entry::read(&self.key, &stored, self.store.codec)?;
        Ok(entry.map_or(Newer::Gone, Newer::Entry))
    }
}

impl<T> KvKey<T> {
    /// The last message, of a replica that has seen this revision.
    pub(super) async fn at_least(&self, revision: u64) -> Result<Option<Stored>, StoreError> {
        self.at_least_within(revision, PATIENCE).await
    }

    async fn at_least_within(
        &self,
        revision: u64,
        patience: Duration,
    ) -> Result<Option<Stored>, StoreError> {
        let since = Instant::now();
        let mut newest = 0;
        let mut failed = None;
        let waiting = async {
            for attempt in 0.. {
                match self.seen(revision, attempt, &mut newest).await {
                    Ok(Some(stored)) => return Ok(stored),
                    Ok(None) => failed = None,
                    Err(error) if may_pass(&error) => failed = Some(error),
                    Err(error) => return Err(error),
                }
                let (base, max) = (Duration::from_millis(2), Duration::from_millis(100));
                tokio::time::sleep(back_off(attempt, base, max)).await;
            }
            Ok(None)
        };
        if let Ok(outcome) = tokio::time::timeout(patience, waiting).await {
            return outcome;
        }
        Err(failed.unwrap_or(StoreError::NotVisible {
            revision,
            newest,
            waited: since.elapsed(),
        }))
    }

    /// One attempt; `None` when the revision is not there yet.
    async fn seen(
        &self,
        revision: u64,
        attempt: u32,
        newest: &mut u64,
    ) -> Result<Option<Option<Stored>>, StoreError> {
        let (stream, subject) = (&self.store.stream, self.subject());
        if attempt == 0 {
            let last = self.last().await?;
            if last.as_ref().is_some_and(|last| last.sequence >= revision) || revision == 0 {
                return Ok(Some(last));
            }
        }
        // It is another key's, or that replica lags.
        let ask = Ask {
            subjects: std::slice::from_ref(&subject),
            from: 0,
        };
        if let Multi::Part(mut part) = stream.multi(ask).await?
            && let Some(seen) = part.seen
        {
            *newest = seen.max(*newest);
            if seen >= revision {
                return Ok(Some(part.messages.pop()));
            }
        }
        // Where a key has no message at all, the answer does not say what was seen.
        *newest = stream.info().await?.state.last_seq.max(*newest);
        if *newest >= revision {
            return stream.leaders_last(&subject).await.map(Some);
        }
        Ok(None)
    }

    /// The last message, of a replica that has seen a write of ours.
    async fn confirmed(&self) -> Result<Option<Stored>, StoreError> {
        let store = &self.store;
        let stream = &store.stream;
        let revision = store.mark().await?;
        let both = [self.subject(), store.subject(MARK)];
        let ask = Ask {
            subjects: &both,
            from: 0,
        };
        match part_with(stream, ask, revision).await? {
            Multi::Part(mut part) => {
                let ours = part.messages.iter().position(|it| it.subject == both[0]);
                Ok(ours.map(|ours| part.messages.swap_remove(ours)))
            }
            Multi::TooMany | Multi::Unsupported => Err(needs_multi()),
        }
    }
}

/// What the answers to a read of many keys must have seen, and how they show it.
#[derive(Debug, Clone, Default)]
pub(super) struct Floor {
    /// This revision of the bucket.
    pub(super) revision: u64,
    /// A subject to be asked along, which has a message: so an answer says what it has seen though none of the keys exists.
    pub(super) witness: Option<String>,
}

impl<T> KvStore<T> {
    pub(super) async fn floor(&self, level: ReadLevel) -> Result<Floor, StoreError> {
        let (revision, witness) = match level {
            ReadLevel::Fast => (0, None),
            ReadLevel::AtLeast(revision) => (revision, None),
            // What the leader has, any replica may bring that has as much.
            ReadLevel::Leader => {
                let info = in_time(PATIENCE, self.stream.info()).await?;
                (info.state.last_seq, None)
            }
            ReadLevel::Confirmed => {
                let revision = in_time(PATIENCE, self.mark()).await?;
                (revision, Some(self.subject(MARK)))
            }
        };
        Ok(Floor { revision, witness })
    }

    /// Writes the mark: its revision.
    async fn mark(&self) -> Result<u64, StoreError> {
        let stream = &self.stream;
        let place = self.layout.write(&stream.js, MARK);
        match stream.publish(place, purge_marker(), Bytes::new()).await {
            Ok(revision) => Ok(revision),
            Err(refusal) => Err(stream.explain(refusal).await),
        }
    }
}

/// A part, of a replica that has seen this revision. One that has none of the subjects does not say what it has seen; it
/// counts where nothing is to be seen.
pub(super) async fn part_with(
    stream: &Stream,
    ask: Ask<'_>,
    revision: u64,
) -> Result<Multi, StoreError> {
    until_seen(revision, || async {
        Ok(match stream.multi(ask).await? {
            Multi::Part(part) => match part.seen {
                Some(seen) if seen < revision => ControlFlow::Continue(seen),
                _ => ControlFlow::Break(Multi::Part(part)),
            },
            other => ControlFlow::Break(other),
        })
    })
    .await
}

/// Returns when the leader has this revision.
pub(super) async fn leader_has(stream: &Stream, revision: u64) -> Result<(), StoreError> {
    until_seen(revision, || async {
        Ok(match stream.info().await?.state.last_seq {
            newest if newest < revision => ControlFlow::Continue(newest),
            _ => ControlFlow::Break(()),
        })
    })
    .await
}

/// Asks until an answer has seen this revision. Where there is one to wait for, an attempt that fails is one of several.
async fn until_seen<V, F>(revision: u64, ask: impl Fn() -> F) -> Result<V, StoreError>
where
    F: Future<Output = Result<ControlFlow<V, u64>, StoreError>>,
{
    let since = Instant::now();
    let mut newest = None;
    let mut attempt = 0;
    loop {
        let failed = match ask().await {
            Ok(ControlFlow::Break(found)) => return Ok(found),
            Ok(ControlFlow::Continue(seen)) => {
                newest = newest.max(Some(seen));
                None
            }
            Err(error) if revision > 0 && may_pass(&error) => Some(error),
            Err(error) => return Err(error),
        };
        let waited = since.elapsed();
        if waited > PATIENCE {
            return Err(match (newest, failed) {
                (None, Some(failed)) => failed,
                _ => StoreError::NotVisible {
                    revision,
                    newest: newest.unwrap_or(0),
                    waited,
                },
            });
        }
        let (base, max) = (Duration::from_millis(2), Duration::from_millis(100));
        tokio::time::sleep(back_off(attempt, base, max)).await;
        attempt += 1;
    }
}

/// A leader is being elected, say.
fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Timeout | StoreError::Unavailable { .. })
}

pub(super) fn needs_multi() -> StoreError {
    StoreError::Unsupported {
        what: "a confirmed read",
        needs: "nats-server 2.11 or later, and a bucket with direct get (`allow_direct`)",
    }
}

async fn in_time<V>(
    patience: Duration,
    read: impl Future<Output = Result<V, StoreError>>,
) -> Result<V, StoreError> {
    let read = tokio::time::timeout(patience, read).await;
    read.unwrap_or(Err(StoreError::Timeout))
}
