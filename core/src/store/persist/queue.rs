//! The order of writes, and when each may be sent: a state machine that does no I/O and is told the time.
//!
//! Writes of one key stand in one *lane*; only the first of a lane is ever sent, and the next one follows when it has
//! ended. Lanes do not wait for each other. A lane is found by its key's hash, so that a key need be neither copied nor hashed
//! again; two keys of one hash share a lane, which costs them nothing but a wait.
//!
//! What is left out: how a write is sent and how it is answered (`actor.rs`), and how many may be accepted (`admission.rs`).

use super::health::Health;
use super::timers::{Alarm, Timers};
use super::{Fault, ages::Ages};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;
use tokio::time::Instant;

/// So many lanes with something to send are a crowd.
const CROWD: usize = 64;

/// What bounds the sending.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Writes in flight at once.
    pub(super) window: usize,
    /// Bytes in flight at once; one write may always fly, however large.
    pub(super) window_bytes: usize,
    /// How long an acknowledgement may take, where the transport does not end the attempt itself.
    pub(super) ack_timeout: Duration,
    /// The pause after a first failure; it doubles up to `backoff_max`.
    pub(super) backoff_min: Duration,
    /// The longest pause.
    pub(super) backoff_max: Duration,
    /// A newer write of a key replaces the one that waits: right where only the last value is kept anyway.
    pub(super) newest_wins: bool,
}

/// One write, as long as it is in the queue: its place and its number, which is the same for every attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) lane: usize,
    pub(super) id: u64,
}

/// How a write is to be treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// What it counts in the window.
    pub(super) bytes: usize,
    /// It is dropped then, and not tried again: somebody waits for it no longer.
    pub(super) deadline: Option<Instant>,
}

/// A write that has ended without being stored, or without it being known.
#[derive(Debug)]
pub(super) struct Ended<J> {
    pub(super) job: J,
    pub(super) attempts: u32,
    /// An attempt was made of which nothing is known.
    pub(super) in_doubt: bool,
    /// The last failure.
    pub(super) fault: Option<Fault>,
}

/// What time has brought about.
#[derive(Debug)]
pub(super) enum Event<J> {
    /// The write's deadline passed, and it is out of the queue.
    Expired(Ended<J>),
    /// The write's deadline passed while it is in flight: it keeps its place until its outcome is known or given up.
    Overdue(Token),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    InFlight {
        epoch: u64,
    },
    /// In flight, and ended by the transport in any case.
    Held,
    Backoff {
        until: Instant,
    },
}

impl Phase {
    fn flies(self) -> bool {
        matches!(self, Self::InFlight { .. } | Self::Held)
    }
}

#[derive(Debug)]
struct Entry<J> {
    id: u64,
    job: J,
    terms: Terms,
    attempts: u32,
    /// It came while another write of its key was on its way: of such a key there may be many.
    followed: bool,
    in_doubt: bool,
    overdue: bool,
    fault: Option<Box<Fault>>,
    age: u64,
}

#[derive(Debug)]
struct Lane<J> {
    hash: u32,
    phase: Phase,
    head: Entry<J>,
    behind: VecDeque<Entry<J>>,
}

/// Passes on what is half a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u32(&mut self, hash: u32) {
        // The map looks at both ends.
        self.0 = u64::from(hash) << 32 | u64::from(hash);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue<J> {
    limits: Limits,
    same_key: fn(&J, &J) -> bool,
    lanes: Vec<Option<Lane<J>>>,
    free: Vec<usize>,
    /// The lanes that are open. Half a hash and a narrow index, so that of a full queue as much as can be stays in the
    /// processor's cache: every write is looked up twice.
    by_hash: HashMap<u32, u32, BuildHasherDefault<AsItIs>>,
    /// Every lane in `Phase::Ready` is in here; one in another phase may be, and is passed over.
    ready: VecDeque<usize>,
    timers: Timers,
    health: Health,
    ages: Ages,
    next_id: u64,
    pending: usize,
    in_flight: usize,
    in_flight_bytes: usize,
    retried: u64,
    superseded: u64,
    /// A write came for a key whose last one is held.
    hurry: bool,
}

impl<J> Queue<J> {
    /// `same_key` tells whether two writes are of one key: their hashes alone do not.
    pub(super) fn new(
        limits: Limits,
        same_key: fn(&J, &J) -> bool,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            limits,
            same_key,
            lanes: Vec::new(),
            free: Vec::new(),
            by_hash: HashMap::default(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            health: Health::new(seed),
            ages: Ages::new(now),
            next_id: 1,
            pending: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            retried: 0,
            superseded: 0,
            hurry: false,
        }
    }

    /// Puts a write behind the earlier ones of its key, whose hash this is. Returns the job that it replaces, where newest
    /// wins.
    pub(super) fn push(&mut self, job: J, hash: u32, terms: Terms, now: Instant) -> Option<J> {
        let id = self.next_id;
        self.next_id += 1;
        let mut entry = Entry {
            id,
            job,
            terms,
            attempts: 0,
            followed: false,
            in_doubt: false,
            overdue: false,
            fault: None,
            age: self.ages.add(now),
        };
        if let Some(deadline) = terms.deadline {
            let next = || self.free.last().copied().unwrap_or(self.lanes.len());
            let lane = self.lane_of(hash).unwrap_or_else(next);
            self.timers
                .at(deadline, Alarm::Deadline(Token { lane, id }));
        }
        self.pending += 1;
        let Some(index) = self.lane_of(hash) else {
            self.open_lane(hash, entry);
            return None;
        };
        // `by_hash` names lanes that are open, and only those.
        let lane = self.lanes[index].as_mut()?;
        entry.followed = lane.phase != Phase::Ready;
        self.hurry |= lane.phase == Phase::Held;
        if self.limits.newest_wins
            && terms.deadline.is_none()
            && let Some(waiting) = lane.replaceable()
            && (self.same_key)(&waiting.job, &entry.job)
        {
            let old = std::mem::replace(waiting, entry);
            self.ages.remove(old.age);
            self.pending -= 1;
            self.superseded += 1;
            return Some(old.job);
        }
        lane.behind.push_back(entry);
        None
    }

    fn lane_of(&self, hash: u32) -> Option<usize> {
        self.by_hash.get(&hash).map(|index| *index as usize)
    }

    fn open_lane(&mut self, hash: u32, head: Entry<J>) {
        let lane = Lane {
            hash,
            phase: Phase::Ready,
            head,
            behind: VecDeque::new(),
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.lanes[index] = Some(lane);
                index
            }
            None => {
                self.lanes.push(Some(lane));
                self.lanes.len() - 1
            }
        };
        // There are as many lanes as writes may wait, and these have to be in memory.
        self.by_hash.insert(hash, index as u32);
        self.ready.push_back(index);
    }

    /// Whether a write may be sent now.
    pub(super) fn can_start(&self, now: Instant) -> bool {
        let room = self.in_flight < self.limits.window
            && (self.in_flight == 0 || self.in_flight_bytes < self.limits.window_bytes);
        room && !self.ready.is_empty() && self.health.allows(self.in_flight, now)
    }

    /// Takes the next write to send; `epoch` is the number of the connection it goes over.
    pub(super) fn start(&mut self, now: Instant, epoch: u64) -> Option<Token> {
        if !self.can_start(now) {
            return None;
        }
        while let Some(index) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if lane.phase != Phase::Ready {
                continue;
            }
            lane.phase = Phase::InFlight { epoch };
            lane.head.attempts += 1;
            self.in_flight += 1;
            self.in_flight_bytes += lane.head.terms.bytes;
            let (token, attempt) = (
                Token {
                    lane: index,
                    id: lane.head.id,
                },
                lane.head.attempts,
            );
            self.trim_timeouts();
            self.timers
                .ack_at(now + self.limits.ack_timeout, token, attempt);
            return Some(token);
        }
        None
    }

    /// Whether this write was just sent for the first time, and its end may take a while: nobody waits for it, and neither
    /// will the next write of its key. With many others waiting that one waits for its turn anyway.
    pub(super) fn is_patient(&self, token: Token) -> bool {
        let lane = self.lanes.get(token.lane).and_then(Option::as_ref);
        lane.is_some_and(|Lane { head, .. }| {
            let alone = !head.followed || self.is_crowded();
            head.attempts == 1 && head.terms.deadline.is_none() && alone
        })
    }

    fn is_crowded(&self) -> bool {
        self.ready.len() > CROWD
    }

    /// The transport ends this attempt, in any case.
    pub(super) fn hold(&mut self, token: Token) {
        self.set_phase(token.lane, Phase::Held);
    }

    /// Whether what is held is to end soon: a write has come that waits for it, or there will be `no_more`. While many others
    /// wait to be sent, its end comes with theirs.
    pub(super) fn hurries(&mut self, no_more: bool) -> bool {
        (std::mem::take(&mut self.hurry) || no_more) && !self.is_crowded()
    }

    /// An attempt was in vain, and nobody's fault: the write is sent again at once.
    pub(super) fn again(&mut self, token: Token) {
        if self.head(token).is_some_and(|lane| lane.phase.flies()) {
            self.send_again(token.lane);
        }
    }

    fn send_again(&mut self, index: usize) {
        self.land(index);
        self.retried += 1;
        self.set_phase(index, Phase::Ready);
        self.ready.push_front(index);
    }

    /// Keeps the list of time-outs about as long as the window: most are void long before they are due.
    fn trim_timeouts(&mut self) {
        let lanes = &self.lanes;
        self.timers.trim_acks(self.limits.window, |token, attempt| {
            is_in_flight(lanes, token, attempt)
        });
    }

    /// The write in flight with this token.
    pub(super) fn job(&mut self, token: Token) -> Option<&mut J> {
        Some(&mut self.head(token)?.head.job)
    }

    fn head(&mut self, token: Token) -> Option<&mut Lane<J>> {
        let lane = self.lanes.get_mut(token.lane)?.as_mut()?;
        (lane.head.id == token.id).then_some(lane)
    }

    /// An attempt was acknowledged, the last one or an earlier one that was thought lost: the write has ended.
    pub(super) fn written(&mut self, token: Token) -> Option<J> {
        self.head(token)?;
        if self.health.success() {
            self.release_backoffs();
        }
        Some(self.end_head(token.lane)?.job)
    }

    /// An attempt failed. Returns the write when that was its end; otherwise it is tried again later.
    pub(super) fn failed(&mut self, token: Token, fault: Fault, now: Instant) -> Option<Ended<J>> {
        let lane = self.head(token)?;
        let phase = lane.phase;
        lane.head.in_doubt |= fault.in_doubt;
        let (transient, over) = (fault.transient, lane.head.overdue);
        if !transient || over {
            lane.head.fault = Some(Box::new(fault));
            // A refusal for good is an answer all the same: the bucket is not down.
            if !transient && self.health.success() {
                self.release_backoffs();
            }
            return self.end_head(token.lane);
        }
        // A late refusal of an attempt that was given up already tells nothing new.
        if !phase.flies() {
            return None;
        }
        lane.head.fault = Some(Box::new(fault));
        let attempts = lane.head.attempts;
        self.land(token.lane);
        self.retried += 1;
        let (min, max) = (self.limits.backoff_min, self.limits.backoff_max);
        self.health.failure(min, now);
        let until = now + self.health.backoff(min, max, attempts);
        self.set_phase(token.lane, Phase::Backoff { until });
        self.timers.at(until, Alarm::Backoff(token));
        None
    }

    /// Handles what is due: acknowledgements that did not come, pauses that are over, deadlines.
    pub(super) fn tick(&mut self, now: Instant, events: &mut Vec<Event<J>>) {
        while let Some((token, attempt)) = self.timers.due_ack(now) {
            if is_in_flight(&self.lanes, token, attempt)
                && let Some(ended) = self.failed(token, Fault::ack_timeout(), now)
            {
                events.push(Event::Expired(ended));
            }
        }
        while let Some((due, alarm)) = self.timers.due(now) {
            match alarm {
                Alarm::Backoff(token) => {
                    let waits = |lane: &mut Lane<J>| lane.phase == Phase::Backoff { until: due };
                    if self.head(token).is_some_and(waits) {
                        self.set_phase(token.lane, Phase::Ready);
                        self.ready.push_back(token.lane);
                    }
                }
                Alarm::Deadline(token) => events.extend(self.expire(token)),
            }
        }
    }

    fn expire(&mut self, token: Token) -> Option<Event<J>> {
        if let Some(lane) = self.head(token) {
            if lane.phase.flies() {
                lane.head.overdue = true;
                return Some(Event::Overdue(token));
            }
            return self.end_head(token.lane).map(Event::Expired);
        }
        let lane = self.lanes.get_mut(token.lane)?.as_mut()?;
        let position = lane.behind.iter().position(|entry| entry.id == token.id)?;
        let entry = lane.behind.remove(position)?;
        Some(Event::Expired(self.close_entry(entry)))
    }

    /// The connection is another one: what was in flight over earlier ones is sent again at once (a repeat is harmless,
    /// it has the same message id), and nobody waits out a pause that was meant for a broken connection.
    pub(super) fn reconnected(&mut self, epoch: u64, events: &mut Vec<Event<J>>) {
        self.health.reset();
        self.release_backoffs();
        let mut lost = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(lane) = lane
                && let Phase::InFlight { epoch: sent } = lane.phase
                && sent < epoch
            {
                lane.head.in_doubt = true;
                lane.head.fault = Some(Box::new(Fault::connection_lost()));
                lost.push((lane.head.id, index, lane.head.overdue));
            }
        }
        lost.sort_unstable();
        for (_, index, overdue) in lost.into_iter().rev() {
            if overdue {
                events.extend(self.end_head(index).map(Event::Expired));
                continue;
            }
            self.send_again(index);
        }
    }

    fn release_backoffs(&mut self) {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(lane) = lane
                && matches!(lane.phase, Phase::Backoff { .. })
            {
                lane.phase = Phase::Ready;
                self.ready.push_back(index);
            }
        }
    }

    fn set_phase(&mut self, index: usize, phase: Phase) {
        if let Some(lane) = self.lanes.get_mut(index).and_then(Option::as_mut) {
            lane.phase = phase;
        }
    }

    /// Takes the head of a lane out of the window.
    fn land(&mut self, index: usize) {
        if let Some(lane) = self.lanes.get(index).and_then(Option::as_ref)
            && lane.phase.flies()
        {
            self.in_flight -= 1;
            self.in_flight_bytes -= lane.head.terms.bytes;
        }
    }

    /// The head has ended: the next one moves up, or the lane closes.
    fn end_head(&mut self, index: usize) -> Option<Ended<J>> {
        self.land(index);
        let slot = self.lanes.get_mut(index)?;
        let lane = slot.as_mut()?;
        let entry = if let Some(next) = lane.behind.pop_front() {
            if lane.phase != Phase::Ready {
                lane.phase = Phase::Ready;
                self.ready.push_back(index);
            }
            std::mem::replace(&mut lane.head, next)
        } else {
            let lane = slot.take()?;
            self.by_hash.remove(&lane.hash);
            self.free.push(index);
            lane.head
        };
        Some(self.close_entry(entry))
    }

    fn close_entry(&mut self, entry: Entry<J>) -> Ended<J> {
        self.pending -= 1;
        self.ages.remove(entry.age);
        Ended {
            job: entry.job,
            attempts: entry.attempts,
            in_doubt: entry.in_doubt,
            fault: entry.fault.map(|fault| *fault),
        }
    }

    /// When `tick` or `start` has something to do next, without anything else happening.
    pub(super) fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        // A probe that is due already waits for the transport, not for the time.
        let probe = self
            .health
            .next_probe(self.in_flight)
            .filter(|at| *at > now && !self.ready.is_empty());
        [self.timers.next(), probe].into_iter().flatten().min()
    }

    /// Takes out everything that is left, oldest first. What is in flight is in doubt.
    pub(super) fn take_all(&mut self) -> Vec<Ended<J>> {
        let mut left = Vec::with_capacity(self.pending);
        for index in 0..self.lanes.len() {
            while let Some(lane) = self.lanes[index].as_mut() {
                lane.head.in_doubt |= lane.phase.flies();
                let id = lane.head.id;
                left.extend(self.end_head(index).map(|ended| (id, ended)));
            }
        }
        self.ready.clear();
        left.sort_unstable_by_key(|(id, _)| *id);
        left.into_iter().map(|(_, ended)| ended).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// All that was submitted and has not ended, in flight or not.
    pub(super) fn len(&self) -> usize {
        self.pending
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn retried(&self) -> u64 {
        self.retried
    }

    pub(super) fn superseded(&self) -> u64 {
        self.superseded
    }

    /// When the oldest pending write came, to a fraction of a second.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.ages.oldest()
    }
}

impl<J> Lane<J> {
    /// The last write of this lane, where it was never sent and nobody waits for it.
    fn replaceable(&mut self) -> Option<&mut Entry<J>> {
        let last = match self.behind.back_mut() {
            Some(last) => last,
            None if self.phase == Phase::Ready => &mut self.head,
            None => return None,
        };
        (last.attempts == 0 && last.terms.deadline.is_none()).then_some(last)
    }
}

fn is_in_flight<J>(lanes: &[Option<Lane<J>>], token: Token, attempt: u32) -> bool {
    let lane = lanes.get(token.lane).and_then(Option::as_ref);
    lane.is_some_and(|lane| {
        lane.head.id == token.id
            && lane.head.attempts == attempt
            && matches!(lane.phase, Phase::InFlight { .. })
    })
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
