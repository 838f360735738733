//! The values of many keys, in as few round trips as there can be.
//!
//! Keys go in pages of multi-get, several at a time. A page comes in parts of a few MiB, and what it has not brought is asked
//! for again: so neither a deletion among the keys nor one that is written meanwhile ends or tears a page. Servers before 2.11
//! and buckets without direct get are asked key by key, many at a time.

use super::super::error::StoreError;
use super::super::key::check_key;
use super::super::multi::{Ask, MAX_SUBJECTS, Multi};
use super::super::stream::Stored;
use super::entry::Kind;
use super::{Entry, KvSelection, KvStore};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Pages on their way at a time.
const PAGES: usize = 4;
/// The subjects of one page, in bytes: the request is to fit a message.
const PAGE_BYTES: usize = 256 * 1024;
/// Single gets on their way at a time, where there are no pages.
const SINGLES: usize = 64;
/// How often a moment is looked for at which nothing is written.
const ROUNDS: usize = 10;

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
}

/// What some keys held at one revision.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot<T> {
    /// The bucket's revision at which all of it was so; 0 where none of the keys was ever written.
    pub revision: u64,
    /// The values by their keys.
    pub entries: BTreeMap<String, Entry<T>>,
}

/// The values of some keys as they come, in no order. A value that cannot be decoded is an error item, and the others go
/// on; any other error is the last item.
pub struct ManyEntries<T> {
    store: KvStore<T>,
    stored: BoxStream<'static, Result<Stored, StoreError>>,
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
    /// The values of these keys, given whole, in one round trip for every 1,024 of them: see [`GetMany`]. A key that is none
    /// is an error when they are read.
    ///
    /// Any replica answers, as for [`get`](super::KvKey::get).
    pub fn get_many<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany<T> {
        let keys = keys.into_iter().map(|key| {
            let key = key.into();
            check_key(&key)?;
            Ok(key)
        });
        GetMany {
            store: self.clone(),
            keys: keys.collect(),
        }
    }
}

impl<T> GetMany<T> {
    /// The pages, as subjects.
    fn pages(self) -> Result<(KvStore<T>, Vec<Vec<String>>), StoreError> {
        let mut seen = HashSet::new();
        let keys = self.keys?;
        let mut pages: Vec<Vec<String>> = Vec::new();
        let mut bytes = 0;
        for key in keys.iter().filter(|key| seen.insert(key.as_str())) {
            let subject = self.store.subject(key);
            bytes += subject.len() + 3;
            match pages.last_mut() {
                Some(page) if page.len() < MAX_SUBJECTS && bytes <= PAGE_BYTES => {
                    page.push(subject);
                }
                _ => {
                    bytes = subject.len();
                    let mut page = Vec::with_capacity(keys.len().min(MAX_SUBJECTS));
                    page.push(subject);
                    pages.push(page);
                }
            }
        }
        Ok((self.store, pages))
    }

    /// The values as they come. No more than four pages' parts, of some 4 MiB each, are held at a time.
    pub fn stream(self) -> ManyEntries<T> {
        let store = self.store.clone();
        let stored = match self.pages() {
            Ok((store, pages)) => {
                let stream = store.stream;
                stream::iter(pages)
                    .map(move |page| Page {
                        stream: stream.clone(),
                        left: page,
                    })
                    .map(Page::messages)
                    .flatten_unordered(PAGES)
                    .boxed()
            }
            Err(error) => stream::once(std::future::ready(Err(error))).boxed(),
        };
        ManyEntries { store, stored }
    }
}

impl<T: DeserializeOwned> GetMany<T> {
    /// The values of all keys **as of one revision**: what they held at the same moment.
    ///
    /// Up to 1,024 keys, whose values have a few MiB together, are read in one request, and always succeed. More are read and
    /// then asked whether anything has changed meanwhile, until nothing has.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`] when these keys are written so often that no such moment was found;
    /// [`StoreError::Unsupported`] on a server before 2.11 or a bucket without direct get; and those of
    /// [`KvKey::get`](super::KvKey::get), for each value.
    pub async fn snapshot(self) -> Result<Snapshot<T>, StoreError> {
        let (store, pages) = self.pages()?;
        let keys = pages.iter().map(Vec::len).sum();
        let mut entries = BTreeMap::new();
        // What each page is known to have been like, and at which revision.
        let mut pages: Vec<(Vec<String>, u64)> = pages.into_iter().map(|page| (page, 0)).collect();
        for _ in 0..ROUNDS {
            let asked = pages
                .iter()
                .map(|(page, known)| changes(&store, page, *known));
            let asked: Vec<_> = asked.collect();
            let asked = stream::iter(asked).buffered(PAGES);
            let found: Vec<Changes> = asked.try_collect().await?;
            let revision = pages.iter().map(|(_, known)| *known).max().unwrap_or(0);
            // Nothing has changed, and every replica that was asked had seen what the others had shown before.
            let still = |page: &Changes| {
                page.changed.is_empty() && page.seen.is_none_or(|seen| seen >= revision)
            };
            if revision > 0 && found.iter().all(still) {
                return Ok(Snapshot { revision, entries });
            }
            let alone = matches!(&found[..], [] | [Changes { parts: 1, .. }]);
            for (page, (_, known)) in found.into_iter().zip(&mut pages) {
                *known = page.seen.map_or(*known, |seen| seen.max(*known));
                for stored in page.changed {
                    let key = store.key_of(&stored.subject);
                    match Entry::read(key, &stored, store.codec)? {
                        Some(entry) => entries.insert(key.to_owned(), entry),
                        None => entries.remove(key),
                    };
                }
            }
            let revision = pages.iter().map(|(_, known)| *known).max().unwrap_or(0);
            // One part is of one moment. And where nothing was ever written, nothing is known of any moment.
            if (alone && revision > 0) || revision == 0 {
                return Ok(Snapshot { revision, entries });
            }
        }
        Err(StoreError::Unsettled { keys })
    }
}

/// What has changed in a page.
struct Changes {
    changed: Vec<Stored>,
    /// Until when that is known; not said where no key of the page was ever written.
    seen: Option<u64>,
    parts: usize,
}

/// What has changed in a page since it was known.
fn changes<'a, T>(
    store: &'a KvStore<T>,
    page: &'a [String],
    known: u64,
) -> BoxFuture<'a, Result<Changes, StoreError>> {
    let stream = &store.stream;
    async move {
        let (mut changed, mut from, mut parts) = (Vec::new(), known + 1, 0);
        loop {
            let ask = Ask {
                subjects: page,
                from,
            };
            let Multi::Part(part) = stream.multi(ask).await? else {
                return Err(StoreError::Unsupported {
                    what: "a snapshot of many keys",
                    needs: "nats-server 2.11 or later, and a bucket with direct get (`allow_direct`)",
                });
            };
            parts += 1;
            // By sequence: what is left out has later ones, or was written again, and then has, too.
            from = part.messages.last().map_or(from, |last| last.sequence + 1);
            changed.extend(part.messages);
            if !part.more {
                let seen = part.seen;
                return Ok(Changes {
                    changed,
                    seen,
                    parts,
                });
            }
        }
    }
    .boxed()
}

/// Subjects that are still to be read.
struct Page {
    stream: super::Stream,
    left: Vec<String>,
}

impl Page {
    fn messages(self) -> BoxStream<'static, Result<Stored, StoreError>> {
        let parts = stream::try_unfold(Some(self), |page| async move {
            let Some(page) = page else { return Ok(None) };
            page.part().await.map(Some)
        });
        parts.try_flatten().boxed()
    }

    /// The next messages, and what is left.
    #[allow(clippy::type_complexity)] // A stream, and what makes the next one.
    async fn part(
        mut self,
    ) -> Result<(BoxStream<'static, Result<Stored, StoreError>>, Option<Self>), StoreError> {
        let ask = Ask {
            subjects: &self.left,
            from: 0,
        };
        match self.stream.multi(ask).await? {
            Multi::Part(part) => {
                let next = part.more.then(|| {
                    let came: HashSet<&str> = part.messages.iter().map(|it| &*it.subject).collect();
                    self.left.retain(|subject| !came.contains(&**subject));
                    self
                });
                Ok((stream::iter(part.messages).map(Ok).boxed(), next))
            }
            Multi::TooMany | Multi::Unsupported => {
                let stream = self.stream;
                let singles = stream::iter(self.left)
                    .map(move |subject| {
                        let stream = stream.clone();
                        async move { stream.last(&subject).await }
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
        let store = self.store();
        let filter = [store.subject(self.filter())];
        let (mut found, mut from) = (BTreeMap::new(), 0);
        loop {
            let ask = Ask {
                subjects: &filter,
                from,
            };
            let Multi::Part(part) = store.stream.multi(ask).await? else {
                break;
            };
            for stored in &part.messages {
                let key = store.key_of(&stored.subject);
                // A key that was written again between two parts comes again.
                match Kind::of(&stored.headers) {
                    Kind::Put => found.insert(key.to_owned(), stored.clone()),
                    _ => found.remove(key),
                };
                from = stored.sequence + 1;
            }
            if !part.more {
                let read = |(key, stored): (String, Stored)| {
                    let entry = Entry::read(&key, &stored, store.codec).transpose()?;
                    Some(entry.map(|entry| (key, entry)))
                };
                return found.into_iter().filter_map(read).collect();
            }
        }
        // In a listing a key may come twice, its newer value last.
        let entries = self.entries().await?;
        entries
            .map_ok(|entry| (entry.key().to_owned(), entry))
            .try_collect()
            .await
    }
}
