//! An ordered consumer that keeps its place: what watches, histories, listings and downloads are made of.
//!
//! It is a push consumer without acknowledgements, delivered to an inbox of its own. A gap in its sequence, missing
//! heartbeats or a reconnection make it anew from the last stream sequence that was seen; the sequence that the stream
//! had at the start counts as seen, so that a watch that was idle does not begin from the first message again. It says
//! once when all that was there at the start has come. Nothing runs while nobody polls it: flow control then stops
//! the server, and what overflows is fetched again because of the gap. A user who may not answer flow control gets what
//! there is in windows of some 2 MB, each from a consumer of its own. It knows nothing of keys, values or objects.

mod contact;
mod place;
mod proof;
#[cfg(test)]
mod replica_tests;
mod restart;

pub(crate) use contact::Contact;

use super::error::StoreError;
use super::stream::{Stored, Stream, StreamInfo};
use async_nats::connection::State;
use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use place::Place;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Heartbeats of a consumer that lives long.
pub(crate) const WATCH_HEARTBEAT: Duration = Duration::from_secs(2);
/// Heartbeats of a consumer that reads what is there: when messages are purged under it, the next one ends the wait.
pub(crate) const READ_HEARTBEAT: Duration = Duration::from_millis(500);
/// How often an idle consumer looks whether the connection was made anew.
const TICK: Duration = Duration::from_millis(500);
/// How long refusals (a missing bucket, a limit) are borne before they are believed: a server that starts gives them too.
const BELIEVE_AFTER: Duration = Duration::from_secs(10);
/// How long a consumer of a replicated stream may bring nothing before it asks whether the stream has a leader.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// How long a replica may take to get what the leader had when the consumer was made, before another one is tried.
const LAGS_AFTER: Duration = Duration::from_secs(1);
/// How many heartbeats may say that the server still waits for an answer that it was given.
const STALLS: u32 = 2;
/// The same where the server is known not to hear them, as a time without a message.
const STALL_TICK: Duration = Duration::from_millis(100);

/// What is delivered.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whole subjects or filters, which do not overlap.
    pub(crate) filters: Vec<String>,
    pub(crate) start: Start,
    pub(crate) headers_only: bool,
    pub(crate) heartbeat: Duration,
}

/// Where delivery begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the first message.
    All,
    /// With the last message of every subject, and then everything new.
    Last,
    /// With this sequence.
    From(u64),
    /// With what comes after now.
    New,
}

/// One step of a delivery.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// A message, and how many are still to come.
    Message(Stored, u64),
    /// All that was there at the start has come. Once.
    CaughtUp,
}

/// One step of a delivery, for those who share a consumer or keep a copy: what an ordinary reader need not know, too.
#[derive(Debug)]
pub(crate) enum Step {
    /// A message, and how many are still to come.
    Message(Stored, u64),
    /// All that was there at the start, or after a [`Step::Reset`], has come.
    CaughtUp,
    /// After an interruption: some messages between these two sequences are no longer in the stream.
    Gap { after: u64, until: u64 },
    /// The stream is another one, or lost its newest messages. It is read as at the start.
    Reset,
    /// A heartbeat.
    Alive,
    /// Nothing came for a while.
    Quiet,
}

pub(crate) type Deliveries = futures_util::stream::BoxStream<'static, Result<Delivery, StoreError>>;

#[derive(Debug)]
pub(crate) struct OrderedConsumer {
    stream: Stream,
    options: Options,
    /// The consumer that is there now; `None` when it is to be made.
    live: Option<Live>,
    /// Everything up to this stream sequence has been delivered or is not wanted.
    position: u64,
    /// The stream's last sequence as known so far, and when that stream was made.
    head: u64,
    created: String,
    /// Where the initial messages end: the stream's last sequence at the start.
    initial_end: u64,
    initial: Initial,
    /// Attempts since the last sign of life.
    attempt: u32,
    /// The server did not hear our answers to its flow control.
    unheard: bool,
    /// The initial messages are read by sequence, so that revisions come among them that are not the last.
    by_sequence: bool,
    ended: bool,
    /// Another stream of the same name is said and read as at the start, and so is one that lost its newest messages.
    starts_over: bool,
    /// What is to be said before anything else.
    said: VecDeque<Step>,
    /// Whether the stream has replicas, one of which may be behind what another told.
    replicated: bool,
    /// Everything up to here was looked at by a consumer and delivered if it matched.
    covered: u64,
    /// Where the interruption is whose gaps are looked for: the last sequence before it, and the last one it may hold.
    interruption: Option<(u64, u64)>,
    contact: Arc<Contact>,
    /// When the stream was known to have a leader.
    looked: Instant,
}

/// How far a reader is that is to go on later.
#[derive(Debug, Clone)]
pub(crate) struct Bookmark {
    pub(crate) position: u64,
    pub(crate) head: u64,
    pub(crate) created: String,
    pub(crate) replicated: bool,
}

#[derive(Debug)]
struct Live {
    name: String,
    subscriber: Subscriber,
    sequence: u64,
    made: Instant,
    seen: Instant,
    /// The stream's last sequence, as its leader told it: just before this consumer was made, or at the last look.
    floor: u64,
    /// Whether it reads what the leader has, and not a replica that may be behind without knowing it.
    led: bool,
    /// The replica has shown that it has everything up to here.
    reached: u64,
    /// It has just had nothing more to bring, which may not be all.
    drained: bool,
    /// How often the connection had been made when this consumer was.
    connects: u64,
    /// When flow control was answered last.
    answered: Option<Instant>,
    /// Heartbeats by which the server has not heard it, since the last message.
    stalls: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Initial {
    Coming,
    /// The last of them was delivered; saying so is next.
    Over,
    Said,
}

impl OrderedConsumer {
    /// Makes the consumer; what goes wrong here is an error at once.
    pub(crate) async fn open(stream: Stream, options: Options) -> Result<Self, StoreError> {
        let info = stream.info().await?;
        Self::begin(stream, options, info).await
    }

    /// The same for a stream whose state was just asked for.
    pub(crate) async fn begin(
        stream: Stream,
        options: Options,
        info: StreamInfo,
    ) -> Result<Self, StoreError> {
        let head = info.state.last_seq;
        let position = match options.start {
            Start::All | Start::Last => 0,
            Start::From(sequence) => sequence.saturating_sub(1),
            Start::New => head,
        };
        let bookmark = Bookmark {
            position,
            head,
            replicated: info.config.num_replicas > 1,
            created: info.created.clone(),
        };
        let mut consumer = Self::at(stream, options, bookmark);
        consumer.initial = Initial::Coming;
        if matches!(consumer.options.start, Start::From(_)) {
            consumer.look_for_gaps(info.state.first_seq, head);
        }
        consumer.create(&info, None).await?;
        Ok(consumer)
    }

    /// One that goes on where another reader is, once it is asked for the next step. Nothing is sent before.
    pub(crate) fn at(stream: Stream, options: Options, bookmark: Bookmark) -> Self {
        Self {
            stream,
            options,
            live: None,
            position: bookmark.position,
            head: bookmark.head,
            created: bookmark.created,
            initial_end: bookmark.head,
            initial: Initial::Said,
            attempt: 0,
            unheard: false,
            by_sequence: false,
            ended: false,
            starts_over: false,
            said: VecDeque::new(),
            replicated: bookmark.replicated,
            covered: bookmark.position,
            interruption: None,
            contact: Arc::default(),
            looked: Instant::now(),
        }
    }

    /// Says a stream that was made anew, or that lost its newest messages, with [`Step::Reset`], and reads it as at the
    /// start. Without it, reading just goes on.
    pub(crate) fn starting_over(mut self) -> Self {
        self.starts_over = true;
        self
    }

    pub(crate) fn bookmark(&self) -> Bookmark {
        Bookmark {
            position: self.position,
            head: self.head,
            created: self.created.clone(),
            replicated: self.replicated,
        }
    }

    /// When the server was heard last.
    pub(crate) fn contact(&self) -> &Arc<Contact> {
        &self.contact
    }

    /// Everything that matches up to this sequence has been delivered, and said: proven, not believed.
    pub(crate) fn covered(&self) -> u64 {
        self.covered.max(self.position)
    }

    /// Whether the initial messages have come, and this was said.
    pub(crate) fn caught_up(&self) -> bool {
        self.initial == Initial::Said
    }

    /// Delivers these from the next step on; what was delivered stays delivered.
    pub(crate) fn refilter(&mut self, filters: Vec<String>) {
        self.options.filters = filters;
        self.position = self.covered();
        self.pause();
    }

    /// Has the consumer deleted until the next step is asked for, so that nothing piles up here or there.
    pub(crate) fn pause(&mut self) {
        self.abandon();
    }

    /// When the stream was made.
    pub(crate) fn created(&self) -> &str {
        &self.created
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// From now on an interruption is looked at: after the position, and up to the stream's last message.
    fn look_for_gaps(&mut self, first: u64, last: u64) {
        let after = self.covered();
        self.interruption = (last > after).then_some((after, last));
        if first > after.saturating_add(1) {
            self.say_gap();
        }
    }

    fn say_gap(&mut self) {
        if let Some((after, until)) = self.interruption.take() {
            self.said.push_back(Step::Gap { after, until });
        }
    }

    /// The deliveries as a stream, which ends after an error that repeating does not mend.
    pub(crate) fn into_stream(self) -> Deliveries {
        let next =
            |mut consumer: Self| async move { consumer.next().await.map(|item| (item, consumer)) };
        futures_util::stream::unfold(self, next).boxed()
    }

    /// The next delivery.
    pub(crate) async fn next(&mut self) -> Option<Result<Delivery, StoreError>> {
        loop {
            return Some(Ok(match self.next_step().await? {
                Ok(Step::Message(stored, pending)) => Delivery::Message(stored, pending),
                Ok(Step::CaughtUp) => Delivery::CaughtUp,
                Ok(_) => continue,
                Err(error) => return Some(Err(error)),
            }));
        }
    }

    /// The next step. A caller that gives up waiting loses what was just under way, and may not go on.
    pub(crate) async fn next_step(&mut self) -> Option<Result<Step, StoreError>> {
        while !self.ended {
            if let Some(said) = self.said.pop_front() {
                return Some(Ok(said));
            }
            if self.initial == Initial::Over {
                self.initial = Initial::Said;
                if !self.replicated {
                    // The one that has told the end is the one that delivers.
                    self.covered = self.covered.max(self.initial_end);
                }
                if !self.replicated || self.options.start == Start::New {
                    self.position = self.position.max(self.initial_end);
                }
                return Some(Ok(Step::CaughtUp));
            }
            if self.live.is_none() {
                if let Err(error) = self.resume().await {
                    self.ended = true;
                    return Some(Err(error));
                }
                continue;
            }
            if self.in_doubt() {
                self.ask_others().await;
                continue;
            }
            let Some(live) = &mut self.live else { continue };
            let waits_in_vain = self.unheard && live.answered.is_some();
            let tick = if waits_in_vain {
                STALL_TICK
            } else {
                TICK.min(self.options.heartbeat)
            };
            match tokio::time::timeout(tick, live.subscriber.next()).await {
                // A consumer of the connection before may have been without us for a while, and does not say so.
                Ok(Some(_)) if live.connects != self.stream.connects() => self.abandon(),
                Ok(Some(message)) => match self.accept(message).await {
                    Ok(Some(step)) => {
                        if let Some(gap) = self.said.pop_front() {
                            self.said.push_back(step);
                            return Some(Ok(gap));
                        }
                        return Some(Ok(step));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                },
                Ok(None) => self.abandon(),
                Err(_) => {
                    let silent = live.seen.elapsed() > self.options.heartbeat.mul_f32(2.5);
                    let again = live.connects != self.stream.connects();
                    let client = self.stream.js.client();
                    let lost = client.connection_state() != State::Connected;
                    if waits_in_vain || silent || again || lost {
                        self.abandon();
                    } else {
                        return Some(Ok(Step::Quiet));
                    }
                }
            }
        }
        None
    }

    /// Takes a message of the inbox: status messages are dealt with here.
    async fn accept(&mut self, message: Message) -> Result<Option<Step>, StoreError> {
        let Some(live) = &mut self.live else {
            return Ok(None);
        };
        live.seen = Instant::now();
        self.contact.heard(live.seen);
        match message.status {
            None => {}
            Some(StatusCode::IDLE_HEARTBEAT) => {
                self.heartbeat(&message).await;
                self.look_for_a_leader().await;
                return Ok(self.live.is_some().then_some(Step::Alive));
            }
            // The consumer was deleted, or its leader changed.
            Some(_) => {
                self.abandon();
                return Ok(None);
            }
        }
        let Some(place) = message.reply.as_deref().and_then(Place::parse) else {
            return Ok(None);
        };
        if place.consumer_sequence != live.sequence + 1 {
            self.abandon();
            return Ok(None);
        }
        live.sequence = place.consumer_sequence;
        live.stalls = 0;
        self.attempt = 0;
        self.looked = live.seen;
        self.head = self.head.max(place.stream_sequence);
        live.reached = live.reached.max(place.stream_sequence);
        live.drained = place.pending == 0;
        let floor = live.floor;
        let initial = self.initial == Initial::Coming;
        if initial
            && (place.stream_sequence >= self.initial_end
                || (place.pending == 0 && self.has_it_all()))
        {
            self.initial = Initial::Over;
        }
        if place.pending == 0 && !self.replicated {
            self.covered = self.covered.max(floor);
        }
        if place.stream_sequence <= self.position {
            return Ok(None);
        }
        self.find_hole(place.stream_sequence);
        let stored = Stored {
            subject: message.subject.into_string(),
            sequence: place.stream_sequence,
            headers: message.headers.unwrap_or_default(),
            payload: message.payload,
            created: place.created,
        };
        let wanted = !initial || !self.by_sequence || self.is_last(&stored).await?;
        self.position = place.stream_sequence;
        Ok(wanted.then_some(Step::Message(stored, place.pending)))
    }

    /// Whether messages are missing before this one, where every message is delivered.
    fn find_hole(&mut self, sequence: u64) {
        let Some((after, until)) = self.interruption else {
            return;
        };
        let everything = matches!(self.options.filters.as_slice(), [all] if all.ends_with(".>") && all.split('.').count() == 3);
        if everything
            && sequence > self.position.max(after).saturating_add(1)
            && self.position < until
        {
            self.say_gap();
        } else if sequence >= until {
            self.interruption = None;
        }
    }

    /// Whether there is no newer message of its subject; a newer one is still to come then.
    async fn is_last(&self, stored: &Stored) -> Result<bool, StoreError> {
        let since = Instant::now();
        loop {
            match self.stream.last(&stored.subject).await {
                Ok(last) => return Ok(last.is_some_and(|last| last.sequence <= stored.sequence)),
                Err(error) if since.elapsed() > BELIEVE_AFTER => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn heartbeat(&mut self, message: &Message) {
        let Some(live) = &mut self.live else { return };
        let header = |name: &str| {
            let headers = message.headers.as_ref()?;
            headers.get(name).map(|value| value.as_str().to_owned())
        };
        let client = self.stream.js.client();
        if let Some(reply) = &message.reply {
            // Flow control: everything before it has been taken, so the server may go on.
            if live.answered.replace(Instant::now()).is_some() {
                // It asks for the next answer once it has heard the last.
                self.unheard = false;
            }
            let _ = client.publish(reply.clone(), Bytes::new()).await;
            return;
        }
        if let Some(stalled) = header("Nats-Consumer-Stalled") {
            // Those that had gathered here while nobody polled say nothing of an answer given just now.
            let fresh = |at: Instant| at.elapsed() < self.options.heartbeat / 2;
            if live.answered.is_none_or(|at| !fresh(at)) {
                live.stalls += u32::from(live.answered.is_some());
                live.answered = Some(Instant::now());
            }
            if live.stalls < STALLS {
                let _ = client.publish(stalled, Bytes::new()).await;
                return;
            }
            // Without the right to answer, the server drops the answers without a word. Another consumer begins with
            // a window of its own.
            if self.stream.warn_of_flow_control() {
                tracing::warn!(
                    stream = ?self.stream,
                    "flow control is not heard, so that reading is slow: the right to publish `$JS.FC.{}.>` seems to be missing",
                    self.stream.name()
                );
            }
            self.unheard = true;
            self.abandon();
            return;
        }
        let number = |name| header(name).and_then(|number| number.parse::<u64>().ok());
        let last = number("Nats-Last-Consumer");
        if last.is_some_and(|last| last != live.sequence) {
            self.abandon();
            return;
        }
        self.attempt = 0;
        let passed = number("Nats-Last-Stream").unwrap_or(0);
        live.reached = live.reached.max(passed);
        let waited = live.made.elapsed();
        if last.is_some() && self.initial == Initial::Said {
            // All that it has delivered is here, and it has looked at everything up to there.
            self.covered = self.covered.max(passed);
        }
        if self.initial != Initial::Coming {
            return;
        }
        // Nothing to send, and nothing under way: what was still to come has been purged, or the replica is behind.
        if self.has_it_all() {
            self.initial = Initial::Over;
        } else if waited > LAGS_AFTER {
            tracing::debug!(stream = ?self.stream, "a replica lags behind, and another one is tried");
            self.abandon();
        }
    }

    /// Gives the consumer up, and has it deleted.
    fn abandon(&mut self) {
        let Some(live) = self.live.take() else { return };
        self.contact.closed();
        self.stream.delete_consumer(&live.name);
    }
}

impl Drop for OrderedConsumer {
    fn drop(&mut self) {
        self.abandon();
    }
}
