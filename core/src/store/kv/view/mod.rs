//! A local copy of a bucket or of a part of it, fed by a watch, read without the network and without a lock.
//!
//! What is published is a whole state of the bucket at one revision, which never changes; a reader loads a pointer to it.
//! Keeping it up to date is in `keeper`, the map in `map`. Writing goes through the store, as always.

mod keeper;
mod map;

use super::{Entry, KvKey, KvSelection, KvStore};
use crate::store::error::{StoreError, unavailable};
use crate::store::key::check_key;
use crate::store::shared::Line;
use arc_swap::ArcSwap;
use keeper::Keeper;
use map::{Cell, Map};
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A local copy of a bucket, of a selection or of a key, which follows every change.
///
/// It is whole before it is handed out. Reads take no lock and no network, some tens of nanoseconds, from any number of
/// threads; values were decoded once, when they came. What it shows is a state that the bucket really had: all of it at
/// one revision, a little behind the present. How far behind is seen in [`status`](Self::status), and
/// [`wait_for`](Self::wait_for) waits for a revision, one's own write, say.
///
/// It survives reconnections and restarts of the server. While those last it shows what it had. A bucket that is deleted
/// and made anew is filled anew, and so is a view that may have missed the end of a value; either way readers see the old
/// state until the new one is whole. A value that is no `T` stops nothing: its key reads as an error, as it does with
/// [`KvKey::get`]. Values that expire, go when their time has come by this machine's clock, or with the server's marker.
/// What an operator removes from the bucket's stream itself (`nats stream purge`) leaves no trace that a watch could
/// bring: the view has it until it is made again.
///
/// It is a handle: cheap to clone, and the last clone takes the watch with it. It is kept by a task of the runtime in
/// which it was made. All of the bucket's part is in memory: choose the part.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
/// let ports = nats_service::KvStore::<u16>::bind(js, "ports")?;
/// ports.key("http")?.put(&80).await?;
///
/// let view = ports.view().await?;
/// assert_eq!(view.get("http")?.map(|entry| *entry.value()), Some(80));
///
/// let revision = ports.key("http")?.put(&8080).await?;
/// view.wait_for(revision).await?;
/// assert_eq!(view.get("http")?.map(|entry| *entry.value()), Some(8080));
/// # Ok(()) }
/// ```
pub struct View<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    bucket: String,
    shared: Arc<Shared<T>>,
    keeper: AbortHandle,
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<T> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.shared.state.load();
        f.debug_struct("View")
            .field("bucket", &self.inner.bucket)
            .field("len", &state.map.readable())
            .field("revision", &state.revision)
            .finish_non_exhaustive()
    }
}

/// What the keeper and the readers share.
struct Shared<T> {
    state: ArcSwap<Published<T>>,
    /// Told at every publication: its revision, and how many there have been.
    told: watch::Sender<(u64, u64)>,
    line: Mutex<Condition>,
}

struct Condition {
    line: Line,
    refills: u64,
    trouble: Option<Arc<StoreError>>,
}

/// A whole state.
struct Published<T> {
    map: Map<T>,
    revision: u64,
}

impl<T> Shared<T> {
    fn new(line: Line) -> Self {
        let empty = Published {
            map: Map::new(),
            revision: 0,
        };
        Self {
            state: ArcSwap::from_pointee(empty),
            told: watch::Sender::new((0, 0)),
            line: Mutex::new(Condition {
                line,
                refills: 0,
                trouble: None,
            }),
        }
    }

    fn condition(&self) -> MutexGuard<'_, Condition> {
        // Nothing in here panics half-way.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: Published<T>) {
        let revision = state.revision;
        self.state.store(Arc::new(state));
        self.told.send_modify(|(told, count)| {
            *told = revision;
            *count += 1;
        });
    }

    fn listens_to(&self, line: Line) {
        self.condition().line = line;
    }

    fn troubled(&self, error: StoreError) {
        tracing::warn!(%error, "a view is not up to date");
        self.condition().trouble = Some(Arc::new(error));
    }

    fn refilled(&self) {
        self.condition().refills += 1;
    }

    /// All that was there has come.
    fn whole(&self) {
        self.condition().trouble = None;
    }
}

/// How a view stands.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
/// let view = nats_service::KvStore::<u16>::bind(js, "ports")?.view().await?;
/// let status = view.status();
/// assert!(status.connected && status.age < std::time::Duration::from_secs(5));
/// assert_eq!((status.entries, status.unreadable, status.refills), (0, 0, 0));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ViewStatus {
    /// Whether the server delivers to it, as far as is known. A network that swallows everything is noticed after five
    /// seconds; a server that was cut off from its cluster, and is reached all the same, after 10 to 25.
    pub connected: bool,
    /// How long ago the server was heard last, by a change or by a heartbeat; those come every two seconds.
    pub age: Duration,
    /// The newest revision in it, deletions included.
    pub revision: u64,
    /// Keys with a value.
    pub entries: usize,
    /// Keys whose value is of another type.
    pub unreadable: usize,
    /// How often it was filled anew: for another bucket of the same name, for revisions that the server lost, or for a gap.
    pub refills: u64,
    /// Why it can't follow at the moment: the bucket is gone, say. It goes on trying.
    pub trouble: Option<Arc<StoreError>>,
}

impl<T> View<T> {
    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.inner.bucket
    }

    /// The value of this key, given whole; `None` when it has none, or is not in the view.
    ///
    /// # Errors
    /// [`StoreError::Undecodable`] when the bytes are no `T`.
    pub fn get(&self, key: &str) -> Result<Option<Arc<Entry<T>>>, Arc<StoreError>> {
        read(self.inner.shared.state.load().map.get(key))
    }

    /// Keys that have a value which can be read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.shared.state.load().map.readable()
    }

    /// Whether no key has a value that can be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it at one revision, which does not change any more.
    #[must_use]
    pub fn snapshot(&self) -> ViewSnapshot<T> {
        ViewSnapshot {
            state: self.inner.shared.state.load_full(),
        }
    }

    /// The newest revision in it, deletions included.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.inner.shared.state.load().revision
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> ViewStatus {
        let shared = &self.inner.shared;
        let (contact, refills, trouble) = {
            let condition = shared.condition();
            let contact = condition.line.contact();
            (contact, condition.refills, condition.trouble.clone())
        };
        let state = shared.state.load();
        ViewStatus {
            connected: contact.is_open() && !self.inner.keeper.is_finished(),
            age: contact.age(),
            revision: state.revision,
            entries: state.map.readable(),
            unreadable: state.map.unreadable(),
            refills,
            trouble,
        }
    }

    /// Waits until the view has this revision, or a newer one, of one of its own keys: to read what was just written, pass
    /// the revision that the write returned. Bound it with `tokio::time::timeout`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when nobody keeps the view any more, since its runtime has ended.
    pub async fn wait_for(&self, revision: u64) -> Result<(), StoreError> {
        let mut told = self.inner.shared.told.subscribe();
        loop {
            if self.revision() >= revision {
                return Ok(());
            }
            if self.inner.keeper.is_finished() {
                return Err(ended());
            }
            // The sender is in `self`: it does not go, but the keeper may.
            let wait = tokio::time::timeout(Duration::from_secs(1), told.changed());
            let _ = wait.await;
        }
    }

    /// What changes from now on, as states: see [`ViewChanges::next`].
    #[must_use]
    pub fn changes(&self) -> ViewChanges<T> {
        ViewChanges {
            told: self.inner.shared.told.subscribe(),
            view: self.clone(),
        }
    }
}

fn read<T>(cell: Option<&Cell<T>>) -> Result<Option<Arc<Entry<T>>>, Arc<StoreError>> {
    match cell {
        None => Ok(None),
        Some(Cell::Readable(entry)) => Ok(Some(entry.clone())),
        Some(Cell::Unreadable(error)) => Err(error.clone()),
    }
}

fn ended() -> StoreError {
    unavailable("the view's runtime has ended")
}

/// Told of the changes of a view.
#[derive(Debug)]
pub struct ViewChanges<T> {
    view: View<T>,
    told: watch::Receiver<(u64, u64)>,
}

impl<T> ViewChanges<T> {
    /// Waits for the next change, and returns the state after it. Changes that come while nobody waits are one: nothing
    /// piles up. Whoever wants every single change takes a [watch](KvStore::watch).
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
    /// let ports = nats_service::KvStore::<u16>::bind(js, "ports")?;
    /// let mut changes = ports.view().await?.changes();
    /// ports.key("http")?.put(&80).await?;
    /// let state = changes.next().await?;
    /// assert_eq!((state.len(), state.revision()), (1, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when nobody keeps the view any more, since its runtime has ended.
    pub async fn next(&mut self) -> Result<ViewSnapshot<T>, StoreError> {
        loop {
            let wait = tokio::time::timeout(Duration::from_secs(1), self.told.changed());
            match wait.await {
                Ok(_) => return Ok(self.view.snapshot()),
                Err(_) if self.view.inner.keeper.is_finished() => return Err(ended()),
                Err(_) => {}
            }
        }
    }
}

/// A state of a view, at one revision.
pub struct ViewSnapshot<T> {
    state: Arc<Published<T>>,
}

impl<T> Clone for ViewSnapshot<T> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
        }
    }
}

impl<T> fmt::Debug for ViewSnapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewSnapshot")
            .field("len", &self.len())
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl<T> ViewSnapshot<T> {
    /// The value of this key, as [`View::get`].
    ///
    /// # Errors
    /// [`StoreError::Undecodable`] when the bytes are no `T`.
    pub fn get(&self, key: &str) -> Result<Option<Arc<Entry<T>>>, Arc<StoreError>> {
        read(self.state.map.get(key))
    }

    /// The entries that can be read, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry<T>>> {
        self.state.map.iter().filter_map(|cell| match cell {
            Cell::Readable(entry) => Some(entry),
            Cell::Unreadable(_) => None,
        })
    }

    /// What cannot be read, each as [`StoreError::Undecodable`], with its key and revision.
    pub fn unreadable(&self) -> impl Iterator<Item = &Arc<StoreError>> {
        self.state.map.iter().filter_map(|cell| match cell {
            Cell::Readable(_) => None,
            Cell::Unreadable(error) => Some(error),
        })
    }

    /// Keys that have a value which can be read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.map.readable()
    }

    /// Whether no key has a value that can be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest revision in it, deletions included.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.state.revision
    }
}

async fn open<T: DeserializeOwned + Send + Sync + 'static>(
    store: &KvStore<T>,
    filters: Vec<String>,
) -> Result<View<T>, StoreError> {
    let (keeper, shared) = Keeper::open(store.clone(), filters).await?;
    let keeper = tokio::spawn(keeper.run()).abort_handle();
    Ok(View {
        inner: Arc::new(Inner {
            bucket: store.bucket().to_owned(),
            shared,
            keeper,
        }),
    })
}

impl<T: DeserializeOwned + Send + Sync + 'static> KvStore<T> {
    /// A local copy of [`all`](Self::all) keys, which follows every change; whole when it is returned.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn view(&self) -> Result<View<T>, StoreError> {
        self.all().view().await
    }

    /// The same of these keys only, given whole.
    ///
    /// # Errors
    /// When one of them is no key, there is none, or the bucket cannot be read.
    pub async fn view_many<K: Into<String>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<View<T>, StoreError> {
        let mut keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            check_key("")?;
        }
        keys.iter().try_for_each(|key| check_key(key))?;
        open(self, keys).await
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> KvSelection<T> {
    /// A local copy of these keys, which follows every change; whole when it is returned.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn view(&self) -> Result<View<T>, StoreError> {
        open(self.store(), vec![self.filter().to_owned()]).await
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> KvKey<T> {
    /// A local copy of this key, which follows every change; whole when it is returned.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn view(&self) -> Result<View<T>, StoreError> {
        open(&self.store, vec![self.key.clone()]).await
    }
}
