//! The task of one writer: moves writes from the handles into the queue, from the queue to the transport, and outcomes
//! back. It decides nothing itself; what it holds is the connection's state and the end.

use super::admission::{Room, Shared};
use super::failure::{Fault, WriteError};
use super::health::LongWaits;
use super::queue::{Ended, Event, Limits, Queue, Terms, Token};
use super::{DrainReport, FailedWrite, Hooks, Job, Write, WriterLimits};
use async_nats::connection::State;
use async_nats::{Client, Statistics};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

/// How often the connection's state is looked at while something is pending: the client tells of a reconnection only
/// whoever asks.
const WATCH: Duration = Duration::from_millis(50);
/// The least time between two rounds while nobody waits for either. A round takes what has come since the last one and sends
/// it in one go, which costs a fraction of as many rounds of one write each, for this process and for the server; and what
/// it saves, calls have.
const PACE: Duration = Duration::from_millis(1);
/// So many writes are taken from the handles at a time.
const BATCH: usize = 512;

/// What the handles say.
#[derive(Debug)]
pub(super) enum Message {
    Write {
        job: Box<Job>,
        deadline: Option<Instant>,
    },
    Drain {
        deadline: Instant,
        done: oneshot::Sender<DrainReport>,
    },
}

/// What became of an attempt.
pub(super) type Completion = (Token, Outcome);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is stored; with its revision where that is told.
    Written(Option<u64>),
    /// It failed.
    Failed(Fault),
    /// It is surely not stored, through no fault of its own: it is sent again at once.
    Unsent,
}

/// How an attempt that was begun comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// By its acknowledgement, which may be lost: after a time, or with the connection, it is taken to be.
    ByItself,
    /// The transport says it, in any case.
    WithTransport,
}

/// How writes reach the server.
pub(super) trait Transport: Send {
    /// The bounds that suit it.
    fn limits(&mut self, limits: &WriterLimits, newest_wins: bool) -> Limits;
    /// Whether another attempt can be taken.
    fn can_start(&self) -> bool;
    /// Begins an attempt; does not wait. What becomes of it comes out of `poll`. A write is `patient` when it is sent for
    /// the first time, and neither a caller nor another write waits for it.
    fn start(&mut self, token: Token, write: &Write, patient: bool, now: Instant) -> Ends;
    /// Drives attempts. Ready when some have ended, or another can be taken where none could.
    fn poll(&mut self, cx: &mut Context<'_>, completions: &mut Vec<Completion>) -> Poll<()>;
    /// A round of `start`s is over. `hurry` when something waits for attempts that end with the transport.
    fn round(&mut self, _hurry: bool, _now: Instant) {}
    /// The connection is another one.
    fn reconnected(&mut self, _now: Instant) {}
    /// When `round` has something to do without anything else happening.
    fn wakeup(&self) -> Option<Instant> {
        None
    }
}

pub(super) struct Actor<T> {
    shared: Arc<Shared>,
    hooks: Hooks,
    inbox: mpsc::UnboundedReceiver<Message>,
    client: Client,
    statistics: Arc<Statistics>,
    transport: T,
    queue: Queue<Box<Job>>,
    hasher: RandomState,
    /// How often the client has connected: the number of the connection.
    epoch: u64,
    connected: bool,
    /// Told when a message comes that must not wait for the next round.
    urgent: Arc<Notify>,
    /// Writes with somebody waiting for them.
    awaited: usize,
    open: bool,
    draining: Option<Draining>,
    /// What the writes of this round held. Given back in one go: who waits for room is woken once, and finds enough to go on.
    room: Room,
    events: Vec<Event<Box<Job>>>,
    long_waits: LongWaits,
}

struct Draining {
    deadline: Instant,
    done: oneshot::Sender<DrainReport>,
    written_before: u64,
}

impl<T: Transport> Actor<T> {
    pub(super) fn new(
        shared: Arc<Shared>,
        hooks: Hooks,
        inbox: mpsc::UnboundedReceiver<Message>,
        client: Client,
        transport: T,
        limits: Limits,
        urgent: Arc<Notify>,
    ) -> Self {
        // Every process, and every writer, its own jitter, and its own lanes.
        let hasher = RandomState::new();
        let seed = hasher.hash_one(0);
        let statistics = client.statistics();
        let epoch = statistics.connects.load(Relaxed);
        Self {
            shared,
            hooks,
            inbox,
            client,
            statistics,
            transport,
            queue: Queue::new(
                limits,
                |one, other| one.has_key_of(other),
                seed,
                Instant::now(),
            ),
            hasher,
            epoch,
            connected: true,
            urgent,
            awaited: 0,
            open: true,
            draining: None,
            room: Room::default(),
            events: Vec::new(),
            long_waits: LongWaits::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut messages = Vec::with_capacity(BATCH);
        let mut completions = Vec::new();
        let sleep = tokio::time::sleep_until(Instant::now());
        tokio::pin!(sleep);
        loop {
            let now = Instant::now();
            self.watch_connection(now);
            self.queue.tick(now, &mut self.events);
            self.settle_events();
            self.pump(now);
            self.publish_state();
            if !self.open && self.queue.is_empty() {
                break;
            }
            if self.draining.as_ref().is_some_and(|d| now >= d.deadline) {
                break;
            }
            if self.may_pause() {
                tokio::select! {
                    () = tokio::time::sleep_until(now + PACE) => {}
                    () = self.urgent.notified() => {}
                }
            }
            let wakeup = self.wakeup(now);
            // Waking early costs nothing, and setting a timer does: it is moved when it is too late, or spent.
            if let Some(at) = wakeup
                && (at < sleep.deadline() || sleep.is_elapsed())
            {
                sleep.as_mut().reset(at);
            }
            tokio::select! {
                () = poll_fn(|cx| self.transport.poll(cx, &mut completions)) => {}
                taken = self.inbox.recv_many(&mut messages, BATCH), if self.open => {
                    self.open = taken > 0;
                }
                () = sleep.as_mut(), if wakeup.is_some() => {}
            }
            let now = Instant::now();
            for message in messages.drain(..) {
                self.accept(message, now);
            }
            for completion in completions.drain(..) {
                self.complete(completion, now);
            }
            self.shared.free(std::mem::take(&mut self.room));
        }
        self.finish();
    }

    fn accept(&mut self, message: Message, now: Instant) {
        match message {
            Message::Write { job, deadline } => {
                let hash = self.hasher.hash_one(&job.write.key) as u32;
                let bytes = job.write.size();
                let terms = Terms { bytes, deadline };
                self.awaited += usize::from(job.awaited);
                // What is superseded has ended well: its room is free, and nobody waits for it.
                drop(self.queue.push(job, hash, terms, now));
            }
            Message::Drain { deadline, done } => {
                // Nothing comes after this but what is in the channel already.
                self.inbox.close();
                let written_before = self.shared.written.load(Relaxed);
                self.draining = Some(Draining {
                    deadline,
                    done,
                    written_before,
                });
            }
        }
    }

    /// Sends what may be sent. Nothing is given to a client that is not connected: it would queue up there, repeat after
    /// repeat, and stand in the way of everything else on this connection.
    fn pump(&mut self, now: Instant) {
        while self.connected && self.transport.can_start() {
            let Some(token) = self.queue.start(now, self.epoch) else {
                break;
            };
            let patient = self.queue.is_patient(token);
            if let Some(job) = self.queue.job(token)
                && self.transport.start(token, &job.write, patient, now) == Ends::WithTransport
            {
                self.queue.hold(token);
            }
        }
        if self.connected {
            let hurry = self.queue.hurries(self.draining.is_some());
            self.transport.round(hurry, now);
        }
    }

    fn watch_connection(&mut self, now: Instant) {
        self.connected = self.client.connection_state() == State::Connected;
        let epoch = self.statistics.connects.load(Relaxed);
        if self.connected && epoch != self.epoch {
            self.epoch = epoch;
            self.queue.reconnected(epoch, &mut self.events);
            self.transport.reconnected(now);
        }
    }

    fn complete(&mut self, (token, outcome): Completion, now: Instant) {
        match outcome {
            Outcome::Written(revision) => {
                let Some(job) = self.queue.written(token) else {
                    return;
                };
                self.awaited -= usize::from(job.awaited);
                self.shared.written.fetch_add(1, Relaxed);
                crate::telemetry::written(&job.span, revision);
                self.hooks.written(&self.shared.bucket, &job, revision);
                let Job { waiter, permit, .. } = *job;
                self.room += permit.into_room();
                if let Some(waiter) = waiter {
                    // A caller that has gone away needs no answer.
                    let _ = waiter.send(Ok(revision.unwrap_or(0)));
                }
            }
            Outcome::Unsent => self.queue.again(token),
            Outcome::Failed(fault) => {
                if fault.transient {
                    tracing::debug!(bucket = %self.shared.bucket, %fault, "a write will be repeated");
                    self.complain(&fault, now);
                }
                if let Some(ended) = self.queue.failed(token, fault, now) {
                    self.end(ended);
                }
            }
        }
    }

    /// A bucket that is full takes nothing for as long as nobody looks, so it is said without being asked for.
    fn complain(&mut self, fault: &Fault, now: Instant) {
        let oldest = self.queue.oldest().unwrap_or(now);
        if let Some(oldest) = self.long_waits.said_now(oldest, now) {
            let (bucket, waiting) = (&self.shared.bucket, self.queue.len());
            tracing::warn!(%bucket, waiting, ?oldest, %fault, "answers wait to be stored");
        }
    }

    fn settle_events(&mut self) {
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Expired(ended) => {
                    self.end(ended);
                }
                Event::Overdue(token) => {
                    let waiter = self.queue.job(token).and_then(|job| job.waiter.take());
                    if let Some(waiter) = waiter {
                        // A caller that has gone away needs no answer.
                        let _ = waiter.send(Err(WriteError::Unknown { cause: None }));
                    }
                }
            }
        }
    }

    fn end(&mut self, ended: Ended<Box<Job>>) -> Option<FailedWrite> {
        self.awaited -= usize::from(ended.job.awaited);
        let error = Fault::into_error(ended.fault, ended.in_doubt);
        let hook = self.hooks.failed.as_ref();
        super::end_unwritten(&self.shared, hook, *ended.job, error, ended.attempts)
    }

    /// Whether what comes next can wait a moment: everything that may be sent has been, no whole round of writes stands
    /// before the door already, and nobody waits for what comes of it.
    fn may_pause(&self) -> bool {
        let all_sent = self.queue.in_flight() > 0 && self.queue.len() == self.queue.in_flight();
        let a_round_waits = self.inbox.len() >= BATCH;
        all_sent && !a_round_waits && self.awaited == 0 && self.connected && self.draining.is_none()
    }

    fn wakeup(&self, now: Instant) -> Option<Instant> {
        let watch = (!self.queue.is_empty()).then(|| now + WATCH);
        let end = self.draining.as_ref().map(|draining| draining.deadline);
        let transport = self.transport.wakeup().filter(|_| self.connected);
        let times = [self.queue.next_wakeup(now), watch, end, transport];
        times.into_iter().flatten().min()
    }

    fn publish_state(&self) {
        let shared = &self.shared;
        shared.in_flight.store(self.queue.in_flight(), Relaxed);
        shared.retried.store(self.queue.retried(), Relaxed);
        shared.superseded.store(self.queue.superseded(), Relaxed);
        shared.set_oldest(self.queue.oldest());
        shared.metrics.publish(|| shared.stats());
    }

    fn finish(mut self) {
        self.shared.close();
        self.inbox.close();
        let now = Instant::now();
        let mut waiting: Vec<(oneshot::Sender<DrainReport>, DrainReport)> = Vec::new();
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Drain { done, .. } => waiting.push((done, DrainReport::default())),
                write @ Message::Write { .. } => self.accept(write, now),
            }
        }
        let mut unwritten = Vec::new();
        for ended in self.queue.take_all() {
            unwritten.extend(self.end(ended));
        }
        self.publish_state();
        if let Some(draining) = self.draining.take() {
            let written = self.shared.written.load(Relaxed) - draining.written_before;
            waiting.push((draining.done, DrainReport { written, unwritten }));
        }
        for (done, report) in waiting {
            // Whoever asked may have gone away; the hook was told.
            let _ = done.send(report);
        }
    }
}
