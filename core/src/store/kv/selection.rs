//! Many keys at once: the names, the latest values, watching them, and removing the marks of those that are gone.
//!
//! A listing is read from the stream as it stands there, so that a million keys take no more memory than ten. A key that is
//! written meanwhile has left its old place, and is met again at the end: so a listing ends only when nothing is left to come.

use super::super::consumer::{
    Deliveries, Delivery, Options, OrderedConsumer, READ_HEARTBEAT, Start,
};
use super::super::error::StoreError;
use super::super::stream::Stored;
use super::entry::Kind;
use super::{Entry, KvStore, WatchBuilder};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

/// Removals on their way at a time.
const REMOVALS: usize = 32;
/// How often another consumer looks at what was written since, where there is no batch to ask for.
const LOOKS: u32 = 10;

/// The keys of a typed bucket that match a filter: one tenant's, say.
///
/// Filters are made from checked tokens, by a key template or by [`KvStore::under`]; there is no way to pass one as text.
pub struct KvSelection<T> {
    store: KvStore<T>,
    filter: String,
}

impl<T> Clone for KvSelection<T> {
    fn clone(&self) -> Self {
        Self::new(self.store.clone(), self.filter.clone())
    }
}

impl<T> fmt::Debug for KvSelection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvSelection")
            .field("bucket", &self.store.bucket())
            .field("filter", &self.filter)
            .finish()
    }
}

impl<T> KvSelection<T> {
    pub(super) fn new(store: KvStore<T>, filter: String) -> Self {
        Self { store, filter }
    }

    pub(super) fn store(&self) -> &KvStore<T> {
        &self.store
    }

    /// The filter, as the server gets it: `user.eu.*`.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The keys that have a value, in the order of their last writes; streamed, so that a million of them take no memory.
    ///
    /// Every key that has a value all the time comes, also where the connection breaks meanwhile. One that is written
    /// meanwhile may come twice.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn keys(&self) -> Result<KeyNames, StoreError> {
        Ok(KeyNames {
            listing: self.listing(true).await?,
            skip: self.store.subject("").len(),
        })
    }

    /// The latest values, in the order of their last writes; streamed. One that is written meanwhile may come twice, its
    /// newer value last.
    ///
    /// # Errors
    /// When the bucket cannot be read. A value that is no `T` is an error item, and the others go on.
    pub async fn entries(&self) -> Result<Entries<T>, StoreError> {
        Ok(Entries {
            store: self.store.clone(),
            listing: self.listing(false).await?,
        })
    }

    async fn listing(&self, headers_only: bool) -> Result<Listed, StoreError> {
        let store = &self.store;
        let deliveries = store.read(&self.filter, Start::Last, headers_only);
        let listing = Listing {
            deliveries: deliveries.await?,
            stream: store.stream.clone(),
            filter: store.subject(&self.filter),
            headers_only,
            position: 0,
            pending: 0,
            step: Step::Initial,
            looks: 0,
            late: VecDeque::new(),
        };
        let next = |mut listing: Listing| async move {
            let stored = listing.next().await?;
            Some((stored, listing))
        };
        Ok(stream::unfold(listing, next).boxed())
    }

    /// Removes the keys that were deleted or purged so long ago, with their histories and the marks: how many. What has a value
    /// stays as it is, also where it is created at the same moment.
    ///
    /// Times are the server's, and compared with this machine's clock. It takes the right to purge the stream.
    ///
    /// # Errors
    /// When the bucket cannot be read or purged; some marks may be gone then.
    pub async fn purge_deletes(&self, older_than: Duration) -> Result<u64, StoreError> {
        let now = SystemTime::now();
        let old = |stored: &Stored| {
            let age = now.duration_since(stored.created).unwrap_or_default();
            Kind::of(&stored.headers) != Kind::Put && age >= older_than
        };
        let marks = self.listing(true).await?;
        let marks = marks.try_filter(|stored| std::future::ready(old(stored)));
        let removed = marks.map_ok(|mark| async move {
            // What was written after the mark is not touched.
            let stream = &self.store.stream;
            stream.purge_through(&mark.subject, mark.sequence).await
        });
        let removed = removed.try_buffer_unordered(REMOVALS);
        let count = async |count, ()| Ok(count + 1);
        removed.try_fold(0, count).await
    }

    /// Watches these keys: await it, after setting what it is to bring.
    pub fn watch(&self) -> WatchBuilder<T> {
        WatchBuilder::new(self.store.clone(), Ok(vec![self.filter.clone()]))
    }
}

type Listed = BoxStream<'static, Result<Stored, StoreError>>;

/// The last messages of keys, until all that are there have come.
struct Listing {
    deliveries: Deliveries,
    stream: super::Stream,
    filter: String,
    headers_only: bool,
    /// The sequence of the last message.
    position: u64,
    /// How many were still to come after it, as far as the server knew.
    pending: u64,
    step: Step,
    /// How often another consumer looked at what was written since.
    looks: u32,
    /// What came with the last look.
    late: VecDeque<Stored>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// What was there at the start comes.
    Initial,
    /// What was written since comes.
    Tail,
    /// Nothing seems to be left: a look at the stream tells. While a key is written the server may count it neither in its
    /// old place nor in its new one.
    Look,
    End,
}

impl Listing {
    async fn next(&mut self) -> Option<Result<Stored, StoreError>> {
        loop {
            if let Some(stored) = self.late.pop_front() {
                return Some(Ok(stored));
            }
            let next = match self.step {
                Step::Initial => self.deliveries.next().await,
                Step::Tail => {
                    // What is waited for may have been removed.
                    let next = self.deliveries.next();
                    let next = tokio::time::timeout(READ_HEARTBEAT * 3, next).await;
                    next.unwrap_or(None)
                }
                Step::Look => match self.look().await {
                    Ok(()) => continue,
                    Err(error) => {
                        self.step = Step::End;
                        return Some(Err(error));
                    }
                },
                Step::End => return None,
            };
            match next {
                Some(Ok(Delivery::Message(stored, pending))) => {
                    let position = self.position.max(stored.sequence);
                    (self.position, self.pending) = (position, pending);
                    if self.step == Step::Tail && pending == 0 {
                        self.step = Step::Look;
                    }
                    return Some(Ok(stored));
                }
                Some(Ok(Delivery::CaughtUp)) if self.pending > 0 => self.step = Step::Tail,
                Some(Ok(Delivery::CaughtUp)) => self.step = Step::Look,
                Some(Err(error)) => {
                    self.step = Step::End;
                    return Some(Err(error));
                }
                None => self.step = Step::Look,
            }
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let part = self.stream.following(&self.filter, self.position + 1);
        let Some(part) = part.await? else {
            return self.look_by_consumer().await;
        };
        if let Some(last) = part.messages.last() {
            self.position = last.sequence;
        }
        self.late.extend(part.messages);
        if !part.more {
            self.step = Step::End;
        }
        Ok(())
    }

    /// The same where there is no batch to ask for: other consumers, until one has nothing to bring.
    async fn look_by_consumer(&mut self) -> Result<(), StoreError> {
        let newest = self.stream.info().await?.state.last_seq;
        if newest <= self.position || self.looks == LOOKS {
            self.step = Step::End;
            return Ok(());
        }
        let options = Options {
            filters: vec![self.filter.clone()],
            start: Start::From(self.position + 1),
            headers_only: self.headers_only,
            heartbeat: READ_HEARTBEAT,
        };
        self.deliveries = OrderedConsumer::open(self.stream.clone(), options)
            .await?
            .into_stream();
        (self.position, self.pending) = (newest, 0);
        (self.step, self.looks) = (Step::Initial, self.looks + 1);
        Ok(())
    }
}

/// The names of keys: a stream that ends when all that are there have come.
pub struct KeyNames {
    listing: Listed,
    /// The length of a subject before the key.
    skip: usize,
}

impl fmt::Debug for KeyNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyNames").finish_non_exhaustive()
    }
}

impl Stream for KeyNames {
    type Item = Result<String, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.listing.poll_next_unpin(cx)) {
                Some(Ok(mut stored)) => {
                    if Kind::of(&stored.headers) == Kind::Put {
                        let place = self.skip.min(stored.subject.len());
                        return Poll::Ready(Some(Ok(stored.subject.split_off(place))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Entries: a stream that ends when all that are there have come.
pub struct Entries<T> {
    store: KvStore<T>,
    listing: Listed,
}

impl<T> fmt::Debug for Entries<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries")
            .field("bucket", &self.store.bucket())
            .finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> Stream for Entries<T> {
    type Item = Result<Entry<T>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(stored) = ready!(self.listing.poll_next_unpin(cx)) else {
                return Poll::Ready(None);
            };
            let entry = stored.and_then(|stored| {
                let key = self.store.key_of(&stored.subject);
                Entry::read(key, &stored, self.store.codec)
            });
            if let Some(entry) = entry.transpose() {
                return Poll::Ready(Some(entry));
            }
        }
    }
}
