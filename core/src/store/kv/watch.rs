//! Changes as they happen. What keeps a watch alive over restarts and reconnections is in `store/consumer.rs`, and how
//! all of a process share a consumer in `store/shared/`.

use super::super::consumer::Start;
use super::super::error::StoreError;
use super::super::shared::{Feed, Item, Wants};
use super::entry::{Decode, decode, undecodable};
use super::{Change, KvStore, Operation};
use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Keys that are not the users': marks of confirmed reads, say.
const RESERVED: &str = "_kv.";

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
    /// How values are had when they do not come.
    valueless: Option<Decode<T>>,
}

impl<T> fmt::Debug for WatchBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchBuilder")
            .field("bucket", &self.store.bucket())
            .field("filters", &self.filters)
            .field("start", &self.start)
            .field("ignore_deletes", &self.ignore_deletes)
            .field("headers_only", &self.valueless.is_some())
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
            valueless: None,
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

    /// What changed, and when, without the values, which the server does not send: for large values of which only some are
    /// read. The value of a change is `()`.
    ///
    /// ```
    /// # use futures_util::StreamExt;
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "pages".into(), ..Default::default() }).await?;
    /// use nats_service::{KvStore, Operation, WatchEvent};
    ///
    /// let pages = KvStore::<String>::bind(js, "pages")?;
    /// pages.key("home")?.put(&"a long text".repeat(1000)).await?;
    /// let mut changes = pages.watch().headers_only().await?;
    /// let Some(Ok(WatchEvent::Change(change))) = changes.next().await else { panic!() };
    /// assert_eq!((&*change.key, change.revision), ("home", 1));
    /// assert!(matches!(change.operation, Operation::Put(())));
    /// # Ok(()) }
    /// ```
    pub fn headers_only(self) -> WatchBuilder<()> {
        WatchBuilder {
            store: self.store.retyped(),
            filters: self.filters,
            start: self.start,
            ignore_deletes: self.ignore_deletes,
            valueless: Some(|_, _| Ok(())),
        }
    }
}

impl<T: DeserializeOwned + 'static> IntoFuture for WatchBuilder<T> {
    type Output = Result<Watch<T>, StoreError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self {
            store,
            filters,
            start,
            ignore_deletes,
            valueless,
        } = self;
        Box::pin(async move {
            let filters = filters?.iter().map(|f| store.subject(f)).collect();
            let wants = Wants {
                filters,
                headers_only: valueless.is_some(),
            };
            let feed = Feed::open(store.stream.clone(), wants, start).await?;
            Ok(Watch {
                store,
                feed,
                ignore_deletes,
                decode: valueless.unwrap_or(decode),
            })
        })
    }
}

/// The changes of a bucket, of a selection or of a key, as a stream that goes on until it is dropped.
///
/// It survives restarts of the server and reconnections: it goes on after the last revision that it brought, so nothing
/// is missed that the bucket still holds, and nothing comes again. What the bucket no longer holds by then is said, with
/// [`WatchEvent::Gap`], as is a bucket that is another one, with [`WatchEvent::Reset`]. An item is an error when a value
/// could not be decoded (the others go on), or, as the last item, when the bucket is gone or the connection closed for
/// good.
///
/// All watches of a bucket on one connection share a consumer on the server, whatever each of them is to bring; a watch
/// costs the server nothing more. While nobody polls it, at most 1,024 changes or 4 MiB of them wait; then it is left
/// behind, costs nothing at all, and goes on from there when it is polled again, with what the bucket holds then. It holds
/// up no other.
pub struct Watch<T> {
    store: KvStore<T>,
    feed: Feed,
    ignore_deletes: bool,
    decode: Decode<T>,
}

impl<T> Watch<T> {
    /// How long ago the server was heard last, by a change or by a heartbeat; those come every two seconds.
    ///
    /// ```
    /// # use futures_util::StreamExt;
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
    /// let watch = nats_service::KvStore::<u16>::bind(js, "ports")?.watch().await?;
    /// assert!(watch.is_connected() && watch.last_contact() < std::time::Duration::from_secs(5));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn last_contact(&self) -> Duration {
        self.feed.contact().age()
    }

    /// Whether the server delivers to it now, as far as is known: a network that swallows everything is noticed after
    /// five seconds, and a server that was cut off from its cluster, and is reached all the same, after 10 to 25. A watch that was left behind, because nobody polled it, is not connected either.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.feed.contact().is_open()
    }
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
    /// nothing; and once more after every [`WatchEvent::Reset`].
    InitialDone,
    /// The watch was interrupted (by the network, the server, or because nobody polled it), or began at a revision, and
    /// some revisions in that time are no longer in the bucket: they were overwritten, expired or were purged. The latest
    /// value of every key that has one comes as always. A key that vanished without a mark does not: whoever keeps a copy
    /// compares it with [`KvStore::keys`], or uses a view, which does.
    ///
    /// Of a watch of some keys only, revisions of other keys may be meant; and what is missing between revisions that are
    /// still there goes unnoticed.
    Gap {
        /// The last revision before it.
        after: u64,
        /// The last revision that may be missing.
        until: u64,
    },
    /// Nothing that was said so far holds: the bucket was deleted and made anew, or its server lost its newest revisions
    /// and gives their numbers to others. The latest change of every key follows, and then
    /// [`WatchEvent::InitialDone`].
    Reset,
}

impl<T> Stream for Watch<T> {
    type Item = Result<WatchEvent<T>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let event = |event| Poll::Ready(Some(Ok(event)));
            let (stored, delta) = match ready!(self.feed.poll_next_unpin(cx)) {
                Some(Ok(Item::Message(stored, delta))) => (stored, delta),
                Some(Ok(Item::CaughtUp)) => return event(WatchEvent::InitialDone),
                Some(Ok(Item::Gap { after, until })) => {
                    return event(WatchEvent::Gap { after, until });
                }
                Some(Ok(Item::Reset)) => return event(WatchEvent::Reset),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let key = self.store.key_of(&stored.subject);
            if key.starts_with(RESERVED) {
                continue;
            }
            let codec = self.store.codec;
            let mut change = Change::read_by(self.decode, key, &stored, delta, codec);
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
