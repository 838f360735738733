//! The values of many keys, in as few round trips as there can be.
//!
//! Keys go in pages of multi-get, several at a time. A page comes in parts of a few MiB, and what it has not brought is asked
//! for again: so neither a deletion among the keys nor one that is written meanwhile ends or tears a page. Servers before 2.11
//! and buckets without direct get are asked key by key, many at a time. What they all held at one moment is in `snapshot`.

mod snapshot;

pub use snapshot::Snapshot;

use super::entry::Kind;
use super::read::{Floor, leader_has, needs_multi, part_with};
use super::{Entry, KvSelection, KvStore, ReadLevel};
use crate::store::error::{StoreError, unavailable};
use crate::store::key::check_key;
use crate::store::multi::{Ask, MAX_SUBJECTS, Multi};
use crate::store::stream::Stored;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinSet;

/// Pages on their way at a time.
const PAGES: usize = 4;
/// The subjects of one page: one is left for whatever proves what an answer has seen.
const PAGE: usize = MAX_SUBJECTS - 1;
/// With fewer subjects than that, a page is not worth a request.
const SMALL_PAGE: usize = 128;
/// The subjects of one page, in bytes: the request is to fit a message.
const PAGE_BYTES: usize = 256 * 1024;
/// Parts with nothing but what was written since the first of them: whoever writes faster than it is read has no end.
const LATE: usize = 10;
/// Single gets on their way at a time, where there are no pages.
const SINGLES: usize = 64;

/// The values of some keys: await it for all of them, or take them as a stream.
///
/// Keys without a value are left out; a key that is there twice counts once.
///
/// ```
/// # use futures_util::TryStreamExt;
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
/// let ports = nats_service::KvStore::<u16>::bind(js, "ports")?;
/// ports.key("http")?.put(&80).await?;
/// ports.key("ssh")?.put(&22).await?;
///
/// let found = ports.get_many(["http", "gopher", "ssh"]).await?;
/// assert_eq!(found.len(), 2);
/// assert_eq!(*found["ssh"].value(), 22);
///
/// // Together, as of one revision of the bucket.
/// let both = ports.get_many(["http", "ssh"]).snapshot().await?;
/// assert_eq!((both.entries.len(), both.revision), (2, 2));
/// # Ok(()) }
/// ```
#[must_use = "nothing is read before it is awaited or taken as a stream"]
pub struct GetMany<T> {
    store: KvStore<T>,
    keys: Result<Vec<String>, StoreError>,
    level: ReadLevel,
}

/// The values of some keys as they come, in no order. A value that cannot be decoded is an error item, and the others go
/// on; any other error is the last item.
pub struct ManyEntries<T> {
    store: KvStore<T>,
    stored: Messages,
}

impl<T> fmt::Debug for GetMany<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.as_ref().map(Vec::len);
        f.debug_struct("GetMany")
            .field("bucket", &self.store.bucket())
            .field("keys", &keys)
            .finish()
    }
}

impl<T> fmt::Debug for ManyEntries<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManyEntries")
            .field("bucket", &self.store.bucket())
            .finish_non_exhaustive()
    }
}

impl<T> KvStore<T> {
    /// The values of these keys, given whole, in one round trip for every 4,092 of them: see [`GetMany`]. A key that is none
    /// is an error when they are read.
    ///
    /// Any replica answers, as for [`get`](super::KvKey::get), unless [`level`](GetMany::level) says more.
    pub fn get_many<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany<T> {
        let keys = keys.into_iter().map(|key| {
            let key = key.into();
            check_key(&key)?;
            Ok(key)
        });
        GetMany {
            store: self.clone(),
            keys: keys.collect(),
            level: ReadLevel::Fast,
        }
    }
}

impl<T> GetMany<T> {
    /// What the answer promises, in place of [`ReadLevel::Fast`]: as for a single key, for each of these. Replicas that have not
    /// seen enough are asked again, for up to 5 s a part; `Leader` and `Confirmed` cost one round trip more, however many
    /// keys there are.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
    /// use nats_service::{KvStore, ReadLevel};
    ///
    /// let ports = KvStore::<u16>::bind(js, "ports")?;
    /// ports.key("http")?.put(&80).await?;
    /// let revision = ports.key("ssh")?.put(&22).await?;
    /// let both = ports.get_many(["http", "ssh"]).level(ReadLevel::AtLeast(revision)).await?;
    /// assert_eq!(both.len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn level(mut self, level: ReadLevel) -> Self {
        self.level = level;
        self
    }

    /// The pages, as subjects; no more than so many in each.
    fn pages(self, most: usize) -> Result<Vec<Vec<String>>, StoreError> {
        let mut seen = HashSet::new();
        let keys = self.keys?;
        let mut pages: Vec<Vec<String>> = Vec::new();
        let mut bytes = 0;
        for key in keys.iter().filter(|key| seen.insert(key.as_str())) {
            let subject = self.store.subject(key);
            bytes += subject.len() + 3;
            match pages.last_mut() {
                Some(page) if page.len() < most && bytes <= PAGE_BYTES => {
                    page.push(subject);
                }
                _ => {
                    bytes = subject.len();
                    let mut page = Vec::with_capacity(keys.len().min(most));
                    page.push(subject);
                    pages.push(page);
                }
            }
        }
        Ok(pages)
    }

    /// The values as they come. No more than four pages' parts, of some 4 MiB each, are held at a time.
    pub fn stream(self) -> ManyEntries<T> {
        let (store, level) = (self.store.clone(), self.level);
        // While the first are here to be decoded, the server looks the others up.
        let keys = self.keys.as_ref().map_or(0, Vec::len);
        let pages = self.pages(keys.div_ceil(PAGES).clamp(SMALL_PAGE, PAGE));
        let floor_of = store.untyped();
        let stored = async move {
            let pages = pages?;
            let floor = floor_of.floor(level).await?;
            Ok::<_, StoreError>(read(floor_of.stream, pages, floor))
        };
        let stored = stored.try_flatten_stream().boxed();
        ManyEntries { store, stored }
    }
}

type Messages = BoxStream<'static, Result<Stored, StoreError>>;

/// The messages of these subjects, by pages.
fn read(stream: super::Stream, pages: Vec<Vec<String>>, floor: Floor) -> Messages {
    stream::iter(pages)
        .map(move |page| Page {
            stream: stream.clone(),
            left: page,
            floor: floor.clone(),
        })
        .map(Page::messages)
        .flatten_unordered(PAGES)
        .boxed()
}

/// Subjects that are still to be read.
struct Page {
    stream: super::Stream,
    left: Vec<String>,
    floor: Floor,
}

impl Page {
    fn messages(self) -> Messages {
        let parts = stream::try_unfold(Some(self), |page| async move {
            let Some(page) = page else { return Ok(None) };
            // On a worker of the runtime, beside the connection, which then wakes whoever waits here for each part, and not
            // for each message.
            let mut task = JoinSet::new();
            task.spawn(page.part());
            match task.join_next().await {
                Some(Ok(part)) => part.map(Some),
                _ => Err(unavailable("the runtime ends")),
            }
        });
        parts.try_flatten().boxed()
    }

    /// The next messages, and what is left.
    async fn part(mut self) -> Result<(Messages, Option<Self>), StoreError> {
        let Floor { revision, witness } = self.floor.clone();
        let asked = self.left.len();
        self.left.extend(witness.clone());
        let ask = Ask {
            subjects: &self.left,
            from: 0,
        };
        let multi = part_with(&self.stream, ask, revision).await?;
        self.left.truncate(asked);
        match multi {
            Multi::Part(part) if revision == 0 || part.seen.is_some() => {
                let next = part.more.then(|| {
                    let came: HashSet<&str> = part.messages.iter().map(|it| &*it.subject).collect();
                    self.left.retain(|subject| !came.contains(&**subject));
                    self
                });
                Ok((stream::iter(part.messages).map(Ok).boxed(), next))
            }
            _ if witness.is_some() => Err(needs_multi()),
            _ => {
                if revision > 0 {
                    leader_has(&self.stream, revision).await?;
                }
                let stream = self.stream;
                let singles = stream::iter(self.left)
                    .map(move |subject| {
                        let stream = stream.clone();
                        async move {
                            match revision {
                                0 => stream.last(&subject).await,
                                _ => stream.leaders_last(&subject).await,
                            }
                        }
                    })
                    .buffer_unordered(SINGLES)
                    .try_filter_map(|found| std::future::ready(Ok(found)));
                Ok((singles.boxed(), None))
            }
        }
    }
}

impl<T: DeserializeOwned> Stream for ManyEntries<T> {
    type Item = Result<Entry<T>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let next = std::task::ready!(self.stored.poll_next_unpin(cx));
            let Some(next) = next else {
                return Poll::Ready(None);
            };
            let entry = next.and_then(|stored| {
                let key = self.store.key_of(&stored.subject);
                Entry::read(key, &stored, self.store.codec)
            });
            if let Some(entry) = entry.transpose() {
                return Poll::Ready(Some(entry));
            }
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for GetMany<T> {
    /// The values by their keys; an error where one of them cannot be read.
    type Output = Result<BTreeMap<String, Entry<T>>, StoreError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let entries = self.stream();
        entries
            .map_ok(|entry| (entry.key().to_owned(), entry))
            .try_collect()
            .boxed()
    }
}

impl<T: DeserializeOwned> KvSelection<T> {
    /// The values of these keys, by key: "get where". Up to 1,024 come in one round trip, without a consumer, and as of one moment; more are listed
    /// as [`entries`](Self::entries) lists them, and that is the way for what may not fit memory.
    ///
    /// # Errors
    /// When the bucket cannot be read, or one of the values.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
    /// let ports = nats_service::KvStore::<u16>::bind(js, "ports")?;
    /// ports.key("eu.http")?.put(&80).await?;
    /// ports.key("us.http")?.put(&81).await?;
    /// let eu = ports.under("eu")?.get_all().await?;
    /// assert_eq!(eu.into_values().map(|entry| entry.into_value()).collect::<Vec<_>>(), [80]);
    /// # Ok(()) }
    /// ```
    #[doc(alias = "get_where")]
    pub async fn get_all(&self) -> Result<BTreeMap<String, Entry<T>>, StoreError> {
        let found = self.found(&Floor::default()).await?;
        if let Some(found) = found {
            return self.entries_of(found);
        }
        // In a listing a key may come twice, its newer value last.
        let entries = self.entries().await?;
        entries
            .map_ok(|entry| (entry.key().to_owned(), entry))
            .try_collect()
            .await
    }

    /// The same with another promise than [`ReadLevel::Fast`]: no value is older, and no key missing, than it says. Where
    /// one round trip does not do, the leader says which keys there are.
    ///
    /// # Errors
    /// [`StoreError::NotVisible`] when the revision does not become visible in 5 s; [`StoreError::Unsupported`] for
    /// [`ReadLevel::Confirmed`] on a server before 2.11 or a bucket without direct get; and those of
    /// [`get_all`](Self::get_all).
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
    /// use nats_service::{KvStore, ReadLevel};
    ///
    /// let ports = KvStore::<u16>::bind(js, "ports")?;
    /// ports.key("eu.http")?.put(&80).await?;
    /// assert_eq!(ports.under("eu")?.read_all(ReadLevel::Leader).await?.len(), 1);
    /// # Ok(()) }
    /// ```
    pub async fn read_all(
        &self,
        level: ReadLevel,
    ) -> Result<BTreeMap<String, Entry<T>>, StoreError> {
        if level == ReadLevel::Fast {
            return self.get_all().await;
        }
        let store = self.store();
        let floor = store.floor(level).await?;
        if let Some(found) = self.found(&floor).await? {
            return self.entries_of(found);
        }
        if floor.witness.is_some() && store.stream.lacks_multi() {
            return Err(needs_multi());
        }
        leader_has(&store.stream, floor.revision).await?;
        let (subjects, seen) = store.stream.subjects(&store.subject(self.filter())).await?;
        if seen < floor.revision {
            // Another leader than just now.
            return Err(StoreError::NotVisible {
                revision: floor.revision,
                newest: seen,
                waited: Duration::ZERO,
            });
        }
        let subjects: Vec<String> = subjects.into_keys().collect();
        let pages = subjects.chunks(PAGE).map(<[String]>::to_vec).collect();
        let found = read(store.stream.clone(), pages, floor);
        let by_key = found.map_ok(|stored| (store.key_of(&stored.subject).to_owned(), stored));
        self.entries_of(by_key.try_collect().await?)
    }

    /// The messages by key, marks of deletions left out; `None` where one request after the other does not do, or proves
    /// nothing.
    async fn found(&self, floor: &Floor) -> Result<Option<BTreeMap<String, Stored>>, StoreError> {
        let store = self.store();
        let mut filter = vec![store.subject(self.filter())];
        filter.extend(floor.witness.clone());
        let (mut found, mut from) = (BTreeMap::new(), 0);
        let (mut first, mut late) = (None, 0);
        while late < LATE {
            let ask = Ask {
                subjects: &filter,
                from,
            };
            let Multi::Part(part) = part_with(&store.stream, ask, floor.revision).await? else {
                return Ok(None);
            };
            if part.seen.is_none() && floor.revision > 0 {
                return Ok(None);
            }
            late += usize::from(first.is_some_and(|seen| from > seen));
            first = first.or(part.seen);
            for stored in part.messages {
                let key = store.key_of(&stored.subject);
                from = stored.sequence + 1;
                // A key that was written again between two parts comes again.
                match Kind::of(&stored.headers) {
                    Kind::Put => found.insert(key.to_owned(), stored),
                    _ => found.remove(key),
                };
            }
            if !part.more {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn entries_of(
        &self,
        found: BTreeMap<String, Stored>,
    ) -> Result<BTreeMap<String, Entry<T>>, StoreError> {
        let read = |(key, stored): (String, Stored)| {
            let entry = Entry::read(&key, &stored, self.store().codec).transpose()?;
            Some(entry.map(|entry| (key, entry)))
        };
        found.into_iter().filter_map(read).collect()
    }
}
