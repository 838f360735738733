//! What waits for one reader: a bounded queue, and who fills it.
//!
//! It is filled by a task of the reader's own until that has caught up with the consumer that is shared, and then by that
//! one. A reader that does not take what is there loses its turn and not its place: whoever fills the queue notes where it
//! stopped, and the next poll begins there.

use super::super::consumer::{Contact, OrderedConsumer};
use super::super::error::StoreError;
use super::super::stream::Stored;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// What waits for one reader, at most: messages, and bytes of theirs; one message always may.
const MAX_ITEMS: usize = 1024;
const MAX_BYTES: usize = 4 << 20;

/// What a reader gets.
#[derive(Debug)]
pub(crate) enum Item {
    /// A message, and how many are known to follow.
    Message(Arc<Stored>, u64),
    /// All that was there has come.
    CaughtUp,
    /// Some revisions between these are no longer in the bucket.
    Gap { after: u64, until: u64 },
    /// Nothing of what was said holds any more.
    Reset,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    waker: Option<Waker>,
    filler: Filler,
    contact: Arc<Contact>,
    /// Why nothing comes any more, until it is said.
    end: Option<StoreError>,
    /// The reader has gone.
    closed: bool,
}

/// Who fills the queue.
#[derive(Debug, Default)]
enum Filler {
    /// A task of the reader's own.
    #[default]
    Own,
    /// The shared consumer.
    Shared,
    /// Nobody: this is to go on when there is room.
    Parked(Box<OrderedConsumer>),
    /// Nobody, for good.
    Ended,
}

/// What a poll finds.
pub(super) enum Taken {
    Item(Item),
    /// Nothing is there, and nobody will bring more: this has to be set to work.
    Parked(Box<OrderedConsumer>),
    End(Option<StoreError>),
}

impl Slot {
    pub(super) fn new(contact: Arc<Contact>) -> Self {
        Self {
            state: Mutex::new(State {
                contact,
                ..State::default()
            }),
            room: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contact(&self) -> Arc<Contact> {
        self.lock().contact.clone()
    }

    /// The next item.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Taken> {
        let mut state = self.lock();
        if let Some(mut item) = state.items.pop_front() {
            if let Item::Message(stored, follow) = &mut item {
                state.bytes = state.bytes.saturating_sub(stored.payload.len());
                *follow = (*follow).max(state.items.len() as u64);
            }
            if state.items.len() == MAX_ITEMS / 2 || state.items.is_empty() {
                self.room.notify_one();
            }
            return Poll::Ready(Taken::Item(item));
        }
        match std::mem::replace(&mut state.filler, Filler::Own) {
            Filler::Parked(consumer) => {
                state.contact = consumer.contact().clone();
                return Poll::Ready(Taken::Parked(consumer));
            }
            Filler::Ended => {
                state.filler = Filler::Ended;
                return Poll::Ready(Taken::End(state.end.take()));
            }
            filler => state.filler = filler,
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The reader has gone.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Adds an item, or gives it back when there is no room.
    fn push(state: &mut State, item: Item) -> Result<(), Item> {
        let size = match &item {
            Item::Message(stored, _) => stored.payload.len(),
            _ => 0,
        };
        let bytes = state.bytes.saturating_add(size);
        let full = state.items.len() >= MAX_ITEMS || bytes > MAX_BYTES;
        if full && !state.items.is_empty() {
            return Err(item);
        }
        state.bytes = bytes;
        state.items.push_back(item);
        Ok(())
    }

    /// Adds an item of the reader's own task, once there is room; it is where it was until then.
    pub(super) async fn put(&self, place: &mut Option<Item>) {
        while let Some(item) = place.take() {
            *place = self.try_put(item);
            if place.is_some() {
                // Room that came about meanwhile is remembered.
                self.room.notified().await;
            }
        }
    }

    /// Adds what was taken from the consumer already, room or not: nobody else has it.
    pub(super) fn put_back(&self, item: Item) {
        self.lock().items.push_back(item);
    }

    /// Adds an item of the shared consumer; `false` when there is no room.
    pub(super) fn offer(&self, item: Item) -> bool {
        self.try_put(item).is_none()
    }

    /// Adds an item and wakes the reader, or gives it back.
    fn try_put(&self, item: Item) -> Option<Item> {
        let (back, waker) = {
            let mut state = self.lock();
            let back = Self::push(&mut state, item).err();
            (back, state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        back
    }

    pub(super) fn share(&self, contact: Arc<Contact>) {
        let mut state = self.lock();
        state.filler = Filler::Shared;
        state.contact = contact;
    }

    /// Nobody fills it any more, until the reader has taken what is there.
    pub(super) fn park(&self, consumer: OrderedConsumer) {
        self.hand_over(Filler::Parked(Box::new(consumer)), None);
    }

    /// Nobody fills it any more.
    pub(super) fn end(&self, error: Option<StoreError>) {
        self.hand_over(Filler::Ended, error);
    }

    fn hand_over(&self, filler: Filler, end: Option<StoreError>) {
        let waker = {
            let mut state = self.lock();
            state.filler = filler;
            state.end = end;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
