//! What fills a reader's queue while the shared consumer does not: a task with a consumer of the reader's own.

use super::super::consumer::{OrderedConsumer, Start, Step};
use super::super::error::StoreError;
use super::super::stream::{Stream, StreamInfo};
use super::Wants;
use super::hub::{Behind, Joined};
use super::registry::Shared;
use super::slot::{Item, Slot};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a reader that does not take what has come keeps its own consumer.
const PARK_AFTER: Duration = Duration::from_secs(5);
/// How long a reader's own consumer may be behind the shared one without a sign, before it is made anew; doubles.
const RENEW_AFTER: Duration = Duration::from_secs(3);
const RENEW_AT_MOST: Duration = Duration::from_secs(120);

/// What is known of a reader by whoever works for it.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) slot: Arc<Slot>,
    wants: Wants,
    /// Where it is a member.
    shared: Mutex<Option<Arc<Shared>>>,
}

impl Reader {
    pub(super) fn new(slot: Arc<Slot>, wants: Wants) -> Self {
        Self {
            slot,
            wants,
            shared: Mutex::default(),
        }
    }

    /// One that joins the shared consumer at once: there is one that delivers what this one wants, and there is nothing for it
    /// from before. `None` where a consumer of its own has to bring that, or has to find out.
    pub(super) fn joined(
        stream: &Stream,
        info: &StreamInfo,
        wants: &Wants,
        start: Start,
    ) -> Option<Self> {
        let nothing = match start {
            Start::New => true,
            Start::All | Start::Last => info.state.messages == 0,
            Start::From(_) => false,
        };
        if !nothing || !Shared::of(stream, &info.created, wants).hub.serves(wants) {
            return None;
        }
        let reader = Self::new(Arc::default(), wants.clone());
        let shared = reader.enter(stream, &info.created);
        reader.slot.offer(Item::CaughtUp);
        if shared.hub.join_after(&reader.slot, info.state.last_seq) {
            return Some(reader);
        }
        reader.leave();
        None
    }

    /// Makes it one of those who want the shared consumer of this stream.
    fn enter(&self, stream: &Stream, created: &str) -> Arc<Shared> {
        let shared = Shared::of(stream, created, &self.wants);
        shared.hub.want(&self.slot, &self.wants);
        let earlier = self.place(Some(shared.clone()));
        if let Some(earlier) = earlier.filter(|earlier| !Arc::ptr_eq(earlier, &shared)) {
            earlier.hub.leave(&self.slot);
        }
        if self.slot.is_closed() {
            // It went in this very moment, and may have looked before there was anything to leave.
            shared.hub.leave(&self.slot);
        }
        shared
    }

    /// It goes.
    pub(super) fn leave(&self) {
        self.slot.close();
        if let Some(shared) = self.place(None) {
            shared.hub.leave(&self.slot);
        }
    }

    fn place(&self, shared: Option<Arc<Shared>>) -> Option<Arc<Shared>> {
        let mut place = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut place, shared)
    }
}

/// What the task has in hand. When it ends half-way, with its runtime, the reader finds that where it looks.
pub(super) struct Task {
    reader: Arc<Reader>,
    stream: Stream,
    own: Option<OrderedConsumer>,
    /// Taken from the consumer, and not in the queue yet.
    item: Option<Item>,
}

impl Task {
    pub(super) fn new(reader: Arc<Reader>, own: OrderedConsumer) -> Self {
        Self {
            reader,
            stream: own.stream().clone(),
            own: Some(own),
            item: None,
        }
    }

    /// Runs until the shared consumer has taken over, or the end.
    pub(super) async fn run(mut self) {
        let Some(own) = &self.own else { return };
        let mut created = own.created().to_owned();
        let mut shared = self.reader.enter(&self.stream, &created);
        let mut renewal = Renewal::new();
        while let Some(own) = &mut self.own {
            self.item = match own.next_step().await {
                Some(Ok(Step::Message(stored, pending))) => {
                    Some(Item::Message(Arc::new(stored), pending))
                }
                Some(Ok(Step::CaughtUp)) => Some(Item::CaughtUp),
                Some(Ok(Step::Gap { after, until })) => Some(Item::Gap { after, until }),
                Some(Ok(Step::Reset)) => Some(Item::Reset),
                Some(Ok(Step::Alive | Step::Quiet)) => None,
                Some(Err(error)) => return self.end(Some(error)),
                None => return self.end(None),
            };
            let put = self.reader.slot.put(&mut self.item);
            if tokio::time::timeout(PARK_AFTER, put).await.is_err() {
                own.pause();
                self.reader.slot.put(&mut self.item).await;
            }
            if !own.caught_up() {
                continue;
            }
            if own.created() != created {
                created = own.created().to_owned();
                shared = self.reader.enter(&self.stream, &created);
            }
            let Some(own) = self.own.take() else { return };
            match shared.hub.join(&self.reader.slot, own) {
                Joined::Yes => {}
                Joined::Drives(consumer) => shared.hub.drive(consumer),
                Joined::NotYet(mut own, behind) => {
                    if renewal.is_due(behind) {
                        own.pause();
                    }
                    self.own = Some(own);
                }
            }
        }
    }

    fn end(mut self, error: Option<StoreError>) {
        self.own = None;
        self.reader.slot.end(error);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            self.reader.slot.put_back(item);
        }
        if let Some(mut own) = self.own.take() {
            own.pause();
            self.reader.slot.park(own);
        }
    }
}

/// When a consumer is made anew that can't tell how far it is: of a replica, it learns that only from what it delivers.
struct Renewal {
    since: Option<Instant>,
    after: Duration,
}

impl Renewal {
    fn new() -> Self {
        Self {
            since: None,
            after: RENEW_AFTER,
        }
    }

    fn is_due(&mut self, behind: Behind) -> bool {
        if behind == Behind(false) {
            self.since = None;
            return false;
        }
        let due = self.since.get_or_insert_with(Instant::now).elapsed() >= self.after;
        if due {
            self.since = None;
            self.after = (self.after * 2).min(RENEW_AT_MOST);
        }
        due
    }
}
