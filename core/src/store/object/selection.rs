//! Many objects at once: listing and watching them.
//!
//! Names are encoded in subjects, so the server cannot filter by parts of them: a selection does it here.

use super::super::consumer::{
    Deliveries, Delivery, Options, OrderedConsumer, READ_HEARTBEAT, Start, WATCH_HEARTBEAT,
};
use super::super::error::StoreError;
use super::super::filter::matches;
use super::content::is_content;
use super::info::parse;
use super::{ObjectInfo, ObjectStore};
use futures_util::{Stream, StreamExt as _};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The objects of a typed store that match a filter.
pub struct ObjectSelection<T> {
    store: ObjectStore<T>,
    /// `None` for all of them, whatever their names.
    filter: Option<String>,
}

impl<T> Clone for ObjectSelection<T> {
    fn clone(&self) -> Self {
        Self::new(self.store.clone(), self.filter.clone())
    }
}

impl<T> fmt::Debug for ObjectSelection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectSelection")
            .field("bucket", &self.store.bucket())
            .field("filter", &self.filter)
            .finish()
    }
}

impl<T> ObjectSelection<T> {
    pub(super) fn new(store: ObjectStore<T>, filter: Option<String>) -> Self {
        Self { store, filter }
    }

    /// The objects that are there, in the order of their last writes; streamed.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn list(&self) -> Result<ObjectList, StoreError> {
        Ok(ObjectList {
            deliveries: self.open(READ_HEARTBEAT).await?,
            filter: self.filter.clone(),
            ended: false,
        })
    }

    /// The objects that are there, deleted ones included, and then what changes.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn watch(&self) -> Result<ObjectWatch, StoreError> {
        Ok(ObjectWatch {
            deliveries: self.open(WATCH_HEARTBEAT).await?,
            filter: self.filter.clone(),
        })
    }

    async fn open(&self, heartbeat: std::time::Duration) -> Result<Deliveries, StoreError> {
        let options = Options {
            filters: vec![format!("$O.{}.M.>", self.store.bucket())],
            start: Start::Last,
            headers_only: false,
            heartbeat,
        };
        let consumer = OrderedConsumer::open(self.store.stream.clone(), options).await?;
        Ok(consumer.into_stream())
    }
}

/// What is to be handed on for a delivery; `None` for nothing.
fn object(filter: Option<&str>, delivery: Delivery) -> Option<Result<ObjectInfo, StoreError>> {
    let Delivery::Message(stored, _) = delivery else {
        return None;
    };
    // Without a body it is a marker of the server's.
    if stored.payload.is_empty() {
        return None;
    }
    match parse(&stored) {
        // Nobody gave it that name.
        Ok(info) if is_content(&info.name) => None,
        Ok(info) if filter.is_some_and(|filter| !matches(filter, &info.name)) => None,
        parsed => Some(parsed),
    }
}

/// Objects: a stream that ends when all that were there have come.
pub struct ObjectList {
    deliveries: Deliveries,
    filter: Option<String>,
    ended: bool,
}

impl fmt::Debug for ObjectList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectList").finish_non_exhaustive()
    }
}

impl Stream for ObjectList {
    type Item = Result<ObjectInfo, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            match ready!(self.deliveries.poll_next_unpin(cx)) {
                Some(Ok(Delivery::CaughtUp)) | None => self.ended = true,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(delivery)) => match object(self.filter.as_deref(), delivery) {
                    None => {}
                    Some(Ok(info)) if info.deleted => {}
                    item => return Poll::Ready(item),
                },
            }
        }
        Poll::Ready(None)
    }
}

/// What changes in an object store, as a stream that goes on until it is dropped, over restarts and reconnections.
pub struct ObjectWatch {
    deliveries: Deliveries,
    filter: Option<String>,
}

impl fmt::Debug for ObjectWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWatch").finish_non_exhaustive()
    }
}

/// What a watch of objects brings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ObjectEvent {
    /// An object was stored, or deleted: see [`ObjectInfo::deleted`].
    Changed(Box<ObjectInfo>),
    /// All that was there when the watch began has come; what follows is new. It comes exactly once, also when there was
    /// nothing.
    InitialDone,
}

impl Stream for ObjectWatch {
    type Item = Result<ObjectEvent, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.deliveries.poll_next_unpin(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Delivery::CaughtUp)) => {
                    return Poll::Ready(Some(Ok(ObjectEvent::InitialDone)));
                }
                Some(Ok(delivery)) => {
                    if let Some(item) = object(self.filter.as_deref(), delivery) {
                        let changed = |info| ObjectEvent::Changed(Box::new(info));
                        return Poll::Ready(Some(item.map(changed)));
                    }
                }
            }
        }
    }
}
