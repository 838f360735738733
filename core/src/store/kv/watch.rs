//! Changes as they happen. What keeps a watch alive over restarts and reconnections is in `store/consumer.rs`.

use super::super::consumer::{
    Deliveries, Delivery, Options, OrderedConsumer, Start, WATCH_HEARTBEAT,
};
use super::super::error::StoreError;
use super::entry::undecodable;
use super::{Change, KvStore, Operation};
use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A watch before it starts: set what it is to bring, and await it.
///
/// Unless told otherwise it brings the latest change of every key, deletions included, then
/// [`WatchEvent::InitialDone`], and then every change as it happens.
///
/// ```
/// # use futures_util::StreamExt;
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
/// use nats_service::{KvStore, WatchEvent};
///
/// let ports = KvStore::<u16>::bind(js, "ports")?;
/// let mut changes = ports.watch().ignore_deletes().await?;
/// assert!(matches!(changes.next().await, Some(Ok(WatchEvent::InitialDone))));
///
/// ports.key("http")?.put(&80).await?;
/// match changes.next().await {
///     Some(Ok(WatchEvent::Change(change))) => assert_eq!(change.value(), Some(&80)),
///     other => panic!("{other:?}"),
/// }
/// # Ok(()) }
/// ```
#[must_use = "a watch begins when it is awaited"]
pub struct WatchBuilder<T> {
    store: KvStore<T>,
    filters: Result<Vec<String>, StoreError>,
    start: Start,
    ignore_deletes: bool,
}

impl<T> fmt::Debug for WatchBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchBuilder")
            .field("bucket", &self.store.bucket())
            .field("filters", &self.filters)
            .field("start", &self.start)
            .field("ignore_deletes", &self.ignore_deletes)
            .finish()
    }
}

impl<T> WatchBuilder<T> {
    pub(super) fn new(store: KvStore<T>, filters: Result<Vec<String>, StoreError>) -> Self {
        Self {
            store,
            filters,
            start: Start::Last,
            ignore_deletes: false,
        }
    }

    /// Every change from this revision on, itself included: to go on where an earlier watch ended, pass the revision of
    /// its last change plus one. What the bucket's history no longer holds does not come.
    pub fn from_revision(mut self, revision: u64) -> Self {
        self.start = Start::From(revision);
        self
    }

    /// Nothing of what is there: [`WatchEvent::InitialDone`] comes first, and then what changes from now on.
    pub fn updates_only(mut self) -> Self {
        self.start = Start::New;
        self
    }

    /// All revisions that the bucket keeps, oldest first, in place of the latest of every key.
    pub fn include_history(mut self) -> Self {
        self.start = Start::All;
        self
    }

    /// Values only: deletions, purges and expiries do not come.
    pub fn ignore_deletes(mut self) -> Self {
        self.ignore_deletes = true;
        self
    }
}

impl<T: 'static> IntoFuture for WatchBuilder<T> {
    type Output = Result<Watch<T>, StoreError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self {
            store,
            filters,
            start,
            ignore_deletes,
        } = self;
        Box::pin(async move {
            let filters = filters?.iter().map(|f| store.subject(f)).collect();
            let options = Options {
                filters,
                start,
                headers_only: false,
                heartbeat: WATCH_HEARTBEAT,
            };
            let consumer = OrderedConsumer::open(store.stream.clone(), options).await?;
            Ok(Watch {
                store,
                deliveries: consumer.into_stream(),
                ignore_deletes,
            })
        })
    }
}

/// The changes of a bucket, of a selection or of a key, as a stream that goes on until it is dropped.
///
/// It survives restarts of the server and reconnections: it goes on after the last revision that it brought, so nothing
/// is missed that the bucket still holds, and nothing comes again. An item is an error when a value could not be decoded
/// (the others go on), or, as the last item, when the bucket is gone or the connection closed for good. While nobody polls
/// it, the server stops sending.
pub struct Watch<T> {
    store: KvStore<T>,
    deliveries: Deliveries,
    ignore_deletes: bool,
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("bucket", &self.store.bucket())
            .finish_non_exhaustive()
    }
}

/// What a watch brings.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchEvent<T> {
    /// A key changed, or this is its latest change from before the watch.
    Change(Change<T>),
    /// All that was there when the watch began has come; what follows is new. It comes exactly once, also when there was
    /// nothing.
    InitialDone,
}

impl<T: DeserializeOwned> Stream for Watch<T> {
    type Item = Result<WatchEvent<T>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (stored, delta) = match ready!(self.deliveries.poll_next_unpin(cx)) {
                Some(Ok(Delivery::Message(stored, delta))) => (stored, delta),
                Some(Ok(Delivery::CaughtUp)) => {
                    return Poll::Ready(Some(Ok(WatchEvent::InitialDone)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let key = self.store.key_of(&stored.subject);
            let mut change = Change::read(key, &stored, delta, self.store.codec);
            return Poll::Ready(Some(match change.operation {
                Operation::Unreadable(source) => Err(undecodable(key, &stored, source)),
                Operation::Delete | Operation::Purge if self.ignore_deletes => continue,
                operation => {
                    change.operation = operation;
                    Ok(WatchEvent::Change(change))
                }
            }));
        }
    }
}
