//! One consumer for all readers of one stream in this process: who they are, what it delivers, and the task that hands
//! its messages on.
//!
//! The task never waits for a reader. One whose queue is full is parked, with its place, and is no member until it has
//! caught up again. What was handed on last is kept for a moment, so that a reader which has caught up can join in
//! although the shared consumer is a few messages ahead of its own.

use super::super::consumer::{
    Bookmark, Contact, Options, OrderedConsumer, Start, Step, WATCH_HEARTBEAT,
};
use super::super::error::StoreError;
use super::super::filter::{all_covered, union};
use super::super::stream::{Stored, Stream};
use super::Wants;
use super::members::{Member, Members};
use super::slot::{Item, Slot};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What was handed on last, for those who join: messages, and bytes of theirs.
const RECENT_ITEMS: usize = 512;
const RECENT_BYTES: usize = 1 << 20;
/// How long filters that nobody wants any more are kept, before the consumer is made anew without them.
const SHRINK_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Hub {
    stream: Stream,
    state: Mutex<State>,
    /// The last member left.
    deserted: Notify,
}

#[derive(Debug, Default)]
struct State {
    members: Members,
    live: Option<Live>,
    /// The consumer may not deliver all that its members want.
    lacks: bool,
    /// Since when it may deliver more than that.
    exceeds: Option<Instant>,
    /// How many consumers there have been.
    generation: u64,
}

/// The consumer as those see it who do not drive it.
#[derive(Debug)]
struct Live {
    generation: u64,
    filters: Vec<String>,
    contact: Arc<Contact>,
    bookmark: Bookmark,
    /// What was handed on last, beginning after `recent_after`.
    recent: VecDeque<Arc<Stored>>,
    recent_bytes: usize,
    recent_after: u64,
}

/// What became of a reader's wish to join.
pub(super) enum Joined {
    /// Its messages come from the shared consumer from now on.
    Yes,
    /// There is none: the reader's own has become it, and is to be driven.
    Drives(OrderedConsumer),
    /// Not now. `Behind` when the reader's own consumer has not seen what the shared one has.
    NotYet(OrderedConsumer, Behind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind(pub(super) bool);

impl Hub {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            state: Mutex::default(),
            deserted: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the shared consumer deliver these, as soon as it can.
    pub(super) fn want(&self, slot: &Arc<Slot>, wants: &Wants) {
        let mut state = self.lock();
        state.members.insert(slot, wants);
        let live = state.live.as_ref();
        let lacks = live.is_some_and(|live| !all_covered(&live.filters, &wants.filters));
        state.lacks |= lacks;
    }

    /// The reader goes.
    pub(super) fn leave(&self, slot: &Arc<Slot>) {
        let mut state = self.lock();
        state.remove(slot);
        if state.members.is_empty() {
            self.deserted.notify_one();
        }
    }

    /// Whether there is a consumer that delivers all of these.
    pub(super) fn serves(&self, wants: &Wants) -> bool {
        let state = self.lock();
        let live = state.live.as_ref();
        live.is_some_and(|live| all_covered(&live.filters, &wants.filters))
    }

    /// Has the messages of a reader that has everything up to this sequence come from the shared consumer, if there is one
    /// and nothing is missed by it.
    pub(super) fn join_after(&self, slot: &Arc<Slot>, covered: u64) -> bool {
        self.lock().admit(&self.stream, slot, covered).is_ok()
    }

    /// Goes on with the shared consumer where the reader's own is, if nothing is missed by it.
    pub(super) fn join(&self, slot: &Arc<Slot>, own: OrderedConsumer) -> Joined {
        let mut state = self.lock();
        let place = own.bookmark();
        if place.position > place.head {
            // It waits for a revision that is still far: nobody else does.
            return Joined::NotYet(own, Behind(false));
        }
        if state.live.is_some() {
            return match state.admit(&self.stream, slot, own.covered()) {
                Ok(()) => Joined::Yes,
                Err(behind) => Joined::NotYet(own, behind),
            };
        }
        let State {
            members,
            live,
            lacks,
            generation,
            ..
        } = &mut *state;
        let Some(member) = members.get_mut(slot) else {
            return Joined::NotYet(own, Behind(false));
        };
        *generation += 1;
        *live = Some(Live::of(&own, *generation));
        member.active = true;
        member.after = own.covered();
        slot.share(own.contact().clone());
        // What the others want, it was not made for.
        *lacks = true;
        Joined::Drives(own)
    }

    /// Drives the consumer until the last member has gone, or it can't go on.
    pub(super) fn drive(self: &Arc<Self>, consumer: OrderedConsumer) {
        let driven = Driven {
            generation: self.lock().generation,
            hub: self.clone(),
        };
        tokio::spawn(async move {
            tokio::select! {
                end = driven.hub.deliver(consumer) => driven.hub.dissolve(driven.generation, end),
                () = driven.hub.wait_until_deserted() => {}
            }
        });
    }

    async fn wait_until_deserted(&self) {
        loop {
            self.deserted.notified().await;
            let mut state = self.lock();
            if state.members.is_empty() {
                // Whoever joins from now on finds none.
                state.live = None;
                return;
            }
        }
    }

    /// Hands on what comes; returns why it ends.
    async fn deliver(&self, mut consumer: OrderedConsumer) -> Option<StoreError> {
        loop {
            let widened = self.lock().due();
            if let Some(filters) = widened {
                consumer.refilter(filters.clone());
                self.lock().refiltered(filters, &consumer);
            }
            match consumer.next_step().await {
                Some(Ok(Step::Message(stored, _))) => self.broadcast(stored),
                Some(Ok(Step::Gap { after, until })) => {
                    let mut state = self.lock();
                    let gap = || Item::Gap { after, until };
                    let full = full(state.members.active(), gap);
                    self.park(&mut state, full, after);
                }
                // Every reader begins anew, and finds out the same.
                Some(Ok(Step::Reset)) | None => return None,
                Some(Ok(Step::CaughtUp | Step::Alive | Step::Quiet)) => {
                    if let Some(live) = &mut self.lock().live {
                        live.bookmark = Bookmark {
                            position: consumer.covered(),
                            ..consumer.bookmark()
                        };
                    }
                }
                Some(Err(error)) => return Some(error),
            }
        }
    }

    fn broadcast(&self, stored: Stored) {
        let stored = Arc::new(stored);
        let mut state = self.lock();
        if let Some(live) = &mut state.live {
            live.bookmark.position = stored.sequence;
            live.bookmark.head = live.bookmark.head.max(stored.sequence);
            live.remember(stored.clone());
        }
        let message = || Item::Message(stored.clone(), 0);
        let full = full(state.members.reached_by(&stored), message);
        self.park(&mut state, full, stored.sequence - 1);
    }

    /// Those who had no room for what came after `position`.
    fn park(&self, state: &mut State, full: Vec<Arc<Slot>>, position: u64) {
        for slot in full {
            state.park(&self.stream, &slot, position);
        }
        if state.members.is_empty() {
            self.deserted.notify_one();
        }
    }

    /// Sends every reader its own way: nothing comes from here any more.
    fn dissolve(&self, generation: u64, error: Option<StoreError>) {
        let mut state = self.lock();
        let position = match &state.live {
            Some(live) if live.generation == generation => live.bookmark.position,
            // Another one has taken its place.
            _ => return,
        };
        let active: Vec<_> = state.members.active().map(|it| it.slot.clone()).collect();
        for slot in active {
            match &error {
                Some(error) => {
                    state.remove(&slot);
                    slot.end(Some(error.again()));
                }
                None => state.park(&self.stream, &slot, position),
            }
        }
        state.live = None;
    }
}

/// Hands each of them such an item; who had no room for it.
fn full<'m>(members: impl Iterator<Item = &'m Member>, item: impl Fn() -> Item) -> Vec<Arc<Slot>> {
    let full = members.filter(|member| !member.slot.offer(item()));
    full.map(|member| member.slot.clone()).collect()
}

/// However the task ends, with its runtime too, no reader is left waiting for it.
struct Driven {
    hub: Arc<Hub>,
    generation: u64,
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.hub.dissolve(self.generation, None);
    }
}

impl Live {
    fn of(consumer: &OrderedConsumer, generation: u64) -> Self {
        Self {
            generation,
            filters: consumer.options().filters.clone(),
            contact: consumer.contact().clone(),
            bookmark: Bookmark {
                position: consumer.covered(),
                ..consumer.bookmark()
            },
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_after: consumer.covered(),
        }
    }

    fn remember(&mut self, stored: Arc<Stored>) {
        self.recent_bytes += stored.payload.len();
        self.recent.push_back(stored);
        while self.recent.len() > RECENT_ITEMS || self.recent_bytes > RECENT_BYTES {
            let Some(oldest) = self.recent.pop_front() else {
                return;
            };
            self.recent_bytes -= oldest.payload.len();
            self.recent_after = oldest.sequence;
        }
    }
}

impl State {
    fn remove(&mut self, slot: &Arc<Slot>) -> Option<Member> {
        let member = self.members.remove(slot)?;
        self.exceeds.get_or_insert_with(Instant::now);
        Some(member)
    }

    /// The filters that the consumer is to have from now on, when they are others than it has.
    fn due(&mut self) -> Option<Vec<String>> {
        let live = self.live.as_ref()?;
        let long = |since: Instant| since.elapsed() >= SHRINK_AFTER;
        if !self.lacks && !self.exceeds.is_some_and(long) {
            return None;
        }
        (self.lacks, self.exceeds) = (false, None);
        let wanted = union(self.members.filters());
        (!wanted.is_empty() && wanted != live.filters).then_some(wanted)
    }

    fn refiltered(&mut self, filters: Vec<String>, consumer: &OrderedConsumer) {
        let Some(live) = &mut self.live else { return };
        *live = Live {
            filters,
            ..Live::of(consumer, live.generation)
        };
    }

    /// Has a member that has everything up to this sequence get its messages from the live consumer. `Behind` when that has
    /// handed on more since than is still known.
    fn admit(&mut self, stream: &Stream, slot: &Arc<Slot>, covered: u64) -> Result<(), Behind> {
        let (Some(member), Some(live)) = (self.members.get_mut(slot), &self.live) else {
            return Err(Behind(false));
        };
        if !all_covered(&live.filters, &member.wants.filters) {
            return Err(Behind(false));
        }
        if covered < live.recent_after {
            return Err(Behind(true));
        }
        member.active = true;
        member.after = covered;
        slot.share(live.contact.clone());
        let missed = live
            .recent
            .iter()
            .filter(|stored| member.is_reached_by(stored));
        let missed: Vec<_> = missed.cloned().collect();
        for stored in missed {
            self.hand_on(stream, slot, stored);
        }
        Ok(())
    }

    /// A message for a reader that has just joined.
    fn hand_on(&mut self, stream: &Stream, slot: &Arc<Slot>, stored: Arc<Stored>) {
        let before = stored.sequence - 1;
        let active = self.members.get(slot).is_some_and(|it| it.active);
        if active && !slot.offer(Item::Message(stored, 0)) {
            self.park(stream, slot, before);
        }
    }

    /// A reader that cannot go on here: it begins after `position`, when it is polled.
    fn park(&mut self, stream: &Stream, slot: &Arc<Slot>, position: u64) {
        let Some(member) = self.remove(slot) else {
            return;
        };
        let Some(live) = &self.live else { return };
        let bookmark = Bookmark {
            position: position.max(member.after),
            ..live.bookmark.clone()
        };
        let options = options(member.wants, Start::New);
        slot.park(OrderedConsumer::at(stream.clone(), options, bookmark).starting_over());
    }
}

/// How readers of this kind read.
pub(super) fn options(wants: Wants, start: Start) -> Options {
    Options {
        filters: wants.filters,
        start,
        headers_only: wants.headers_only,
        heartbeat: WATCH_HEARTBEAT,
    }
}
