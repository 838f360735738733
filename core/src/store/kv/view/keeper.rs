//! The task that keeps a view up to date: it applies what the watch brings and publishes the result.
//!
//! Everything that is waiting is applied before it publishes, so a flood costs readers nothing. A view is only ever
//! replaced by a whole one: what is filled anew is published when it is complete.

use super::super::entry::{Kind, undecodable};
use super::super::{Entry, KvStore};
use super::map::{Cell, Map};
use super::{Published, Shared};
use crate::store::consumer::Start;
use crate::store::error::{StoreError, unavailable};
use crate::store::shared::{Feed, Item, Wants};
use crate::store::stream::{Stored, back_off};
use futures_util::{FutureExt as _, StreamExt as _};
use serde::de::DeserializeOwned;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// So many changes are applied before they are published, at most.
const AT_ONCE: usize = 4096;
/// How long a view that could not be filled anew waits before it tries again.
const RETRY: Duration = Duration::from_secs(2);
/// How long the clock is trusted to run as it does.
const CLOCK: Duration = Duration::from_secs(60);

pub(super) struct Keeper<T> {
    store: KvStore<T>,
    filters: Vec<String>,
    shared: Arc<Shared<T>>,
    feed: Feed,
    map: Map<T>,
    revision: u64,
    /// It is being filled, and not to be shown yet.
    filling: bool,
    /// It is to be filled anew, which was not possible yet.
    owed: Option<Instant>,
    lifetimes: Lifetimes,
}

/// When values end that the server removes without a word.
#[derive(Default)]
struct Lifetimes {
    /// The bucket's.
    max_age: Option<Duration>,
    /// The server marks what it removes: the watch brings it.
    marked: bool,
    ends: BinaryHeap<Reverse<(SystemTime, u64, String)>>,
}

impl<T: DeserializeOwned + Send + Sync + 'static> Keeper<T> {
    /// Begins to read, and returns when all that was there has come.
    pub(super) async fn open(
        store: KvStore<T>,
        filters: Vec<String>,
    ) -> Result<(Self, Arc<Shared<T>>), StoreError> {
        let (feed, lifetimes) = begin(&store, &filters).await?;
        let shared = Arc::new(Shared::new(feed.line()));
        let mut keeper = Self {
            store,
            filters,
            shared: shared.clone(),
            feed,
            map: Map::new(),
            revision: 0,
            filling: true,
            owed: None,
            lifetimes,
        };
        while keeper.filling {
            keeper.step().await?;
        }
        Ok((keeper, shared))
    }

    pub(super) async fn run(mut self) {
        let mut attempt = 0;
        loop {
            match self.step().await {
                Ok(()) => attempt = 0,
                Err(error) => {
                    self.shared.troubled(error);
                    // The last state stays, and its age is seen. Somebody may make the bucket again.
                    let (base, max) = (Duration::from_millis(200), Duration::from_secs(10));
                    tokio::time::sleep(back_off(attempt, base, max)).await;
                    attempt += 1;
                    self.refill().await;
                }
            }
        }
    }

    /// Applies what comes next, and all that has come with it, and publishes.
    async fn step(&mut self) -> Result<(), StoreError> {
        let next = tokio::select! {
            item = self.feed.next() => Some(item),
            () = self.lifetimes.next_end() => None,
            () = until(self.owed) => {
                self.refill().await;
                None
            }
        };
        let mut changed = false;
        if let Some(item) = next {
            changed |= self.apply(item).await?;
            for _ in 0..AT_ONCE {
                let Some(item) = self.feed.next().now_or_never() else {
                    break;
                };
                changed |= self.apply(item).await?;
            }
        }
        changed |= self.end_lives();
        if changed && !self.filling {
            self.shared.publish(Published {
                map: self.map.clone(),
                revision: self.revision,
            });
        }
        Ok(())
    }

    /// Whether there is something new to be shown.
    async fn apply(&mut self, item: Option<Result<Item, StoreError>>) -> Result<bool, StoreError> {
        match item {
            Some(Ok(Item::Message(stored, _))) => self.change(&stored),
            Some(Ok(Item::CaughtUp)) => {
                self.filling = false;
                self.shared.whole();
            }
            Some(Ok(Item::Reset)) => self.forget(),
            // What is missing may be the end of a value.
            Some(Ok(Item::Gap { .. })) => {
                self.refill().await;
                return Ok(false);
            }
            Some(Err(error)) => return Err(error),
            None => return Err(unavailable("the watch has ended")),
        }
        Ok(true)
    }

    fn change(&mut self, stored: &Stored) {
        self.revision = self.revision.max(stored.sequence);
        let key = self.store.key_of(&stored.subject);
        if Kind::of(&stored.headers) != Kind::Put {
            self.map.remove(key);
            return;
        }
        self.lifetimes.begins(key, stored);
        let cell = match Entry::read(key, stored, self.store.codec) {
            Ok(Some(entry)) => Cell::Readable(Arc::new(entry)),
            Ok(None) => return,
            Err(StoreError::Undecodable { source, .. }) => {
                Cell::Unreadable(Arc::new(undecodable(key, stored, source)))
            }
            Err(error) => Cell::Unreadable(Arc::new(error)),
        };
        self.map.insert(cell);
    }

    fn end_lives(&mut self) -> bool {
        let mut ended = false;
        while let Some((revision, key)) = self.lifetimes.ended() {
            let is_that = |cell: &Cell<T>| cell.revision() == revision;
            ended |= self.map.get(&key).is_some_and(is_that) && self.map.remove(&key);
        }
        ended
    }

    /// From here on it is built anew. What is shown stays until that is whole.
    fn forget(&mut self) {
        self.map = Map::new();
        self.revision = 0;
        self.filling = true;
        self.lifetimes.ends.clear();
        self.shared.refilled();
    }

    async fn refill(&mut self) {
        match begin(&self.store, &self.filters).await {
            Ok((feed, lifetimes)) => {
                self.shared.listens_to(feed.line());
                self.feed = feed;
                self.forget();
                self.lifetimes = lifetimes;
                self.owed = None;
            }
            Err(error) => {
                self.shared.troubled(error);
                self.owed = Some(Instant::now() + RETRY);
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn begin<T>(store: &KvStore<T>, filters: &[String]) -> Result<(Feed, Lifetimes), StoreError> {
    let config = store.stream.info().await?.config;
    let lifetimes = Lifetimes {
        max_age: config.ttl(),
        marked: config.limit_markers().is_some(),
        ends: BinaryHeap::new(),
    };
    let wants = Wants {
        filters: filters.iter().map(|filter| store.subject(filter)).collect(),
        headers_only: false,
    };
    let feed = Feed::open(store.stream.clone(), wants, Start::Last).await?;
    Ok((feed, lifetimes))
}

impl Lifetimes {
    fn begins(&mut self, key: &str, stored: &Stored) {
        if self.marked {
            return;
        }
        let own = stored
            .headers
            .get("Nats-TTL")
            .map(|ttl| lifetime(ttl.as_str()));
        let lifetime = match own {
            Some(Some(own)) => Some(self.max_age.map_or(own, |max| max.min(own))),
            // `never`
            Some(None) => None,
            None => self.max_age,
        };
        if let Some(end) = lifetime.and_then(|lifetime| stored.created.checked_add(lifetime)) {
            self.ends
                .push(Reverse((end, stored.sequence, key.to_owned())));
        }
    }

    /// A value whose end has come.
    fn ended(&mut self) -> Option<(u64, String)> {
        let Reverse((end, ..)) = self.ends.peek()?;
        if *end > SystemTime::now() {
            return None;
        }
        self.ends
            .pop()
            .map(|Reverse((_, revision, key))| (revision, key))
    }

    /// Waits until the next value ends, or for a while.
    async fn next_end(&self) {
        match self.ends.peek() {
            None => std::future::pending().await,
            Some(Reverse((end, ..))) => {
                let left = end.duration_since(SystemTime::now()).unwrap_or_default();
                tokio::time::sleep(left.min(CLOCK)).await;
            }
        }
    }
}

/// `30s`, `1h30m`, or a number of seconds, as the server takes it; `None` for `never`.
fn lifetime(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (mut total, mut number) = (0.0, String::new());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            continue;
        }
        let unit = match c {
            'h' => 3600.0,
            'm' if rest.peek() == Some(&'s') => 1e-3,
            'm' => 60.0,
            's' => 1.0,
            _ => return None,
        };
        if c == 'm' && rest.peek() == Some(&'s') {
            rest.next();
        }
        total += std::mem::take(&mut number).parse::<f64>().ok()? * unit;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_as_the_server_reads_them() {
        let of = |text| lifetime(text).map(|lifetime| lifetime.as_millis());
        assert_eq!(of("30"), Some(30_000));
        assert_eq!(of("1h30m"), Some(5_400_000));
        assert_eq!(of("2.5s"), Some(2_500));
        assert_eq!(of("1500ms"), Some(1_500));
        assert_eq!(of("never"), None);
    }
}
