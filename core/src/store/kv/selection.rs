//! Many keys at once: the names, the latest values, and watching them.

use super::super::consumer::{Deliveries, Delivery, Start};
use super::super::error::StoreError;
use super::entry::Kind;
use super::{Entry, KvStore, WatchBuilder};
use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

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

    /// The keys that have a value, in the order of their last writes; streamed.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn keys(&self) -> Result<KeyNames, StoreError> {
        let deliveries = self.store.read(&self.filter, Start::Last, true).await?;
        Ok(KeyNames {
            deliveries,
            skip: self.store.subject("").len(),
            ended: false,
        })
    }

    /// The latest values, in the order of their last writes; streamed.
    ///
    /// # Errors
    /// When the bucket cannot be read. A value that is no `T` is an error item, and the others go on.
    pub async fn entries(&self) -> Result<Entries<T>, StoreError> {
        let deliveries = self.store.read(&self.filter, Start::Last, false).await?;
        Ok(Entries {
            store: self.store.clone(),
            deliveries,
            ended: false,
        })
    }

    /// Watches these keys: await it, after setting what it is to bring.
    pub fn watch(&self) -> WatchBuilder<T> {
        WatchBuilder::new(self.store.clone(), Ok(vec![self.filter.clone()]))
    }
}

/// The names of keys: a stream that ends when all that were there have come.
pub struct KeyNames {
    deliveries: Deliveries,
    /// The length of a subject before the key.
    skip: usize,
    ended: bool,
}

impl fmt::Debug for KeyNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyNames").finish_non_exhaustive()
    }
}

impl Stream for KeyNames {
    type Item = Result<String, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            match ready!(self.deliveries.poll_next_unpin(cx)) {
                Some(Ok(Delivery::Message(mut stored, _))) => {
                    if Kind::of(&stored.headers) == Kind::Put {
                        let key = stored
                            .subject
                            .split_off(self.skip.min(stored.subject.len()));
                        return Poll::Ready(Some(Ok(key)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Delivery::CaughtUp)) | None => self.ended = true,
            }
        }
        Poll::Ready(None)
    }
}

/// Entries: a stream that ends when all that were there have come.
pub struct Entries<T> {
    store: KvStore<T>,
    deliveries: Deliveries,
    ended: bool,
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
        while !self.ended {
            match ready!(self.deliveries.poll_next_unpin(cx)) {
                Some(Ok(Delivery::Message(stored, _))) => {
                    let key = self.store.key_of(&stored.subject);
                    match Entry::read(key, &stored, self.store.codec) {
                        Ok(None) => {}
                        Ok(Some(entry)) => return Poll::Ready(Some(Ok(entry))),
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Delivery::CaughtUp)) | None => self.ended = true,
            }
        }
        Poll::Ready(None)
    }
}
