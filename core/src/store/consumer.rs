//! An ordered consumer that keeps its place: what watches, histories, listings and downloads are made of.
//!
//! It is a push consumer without acknowledgements, delivered to an inbox of its own. A gap in its sequence, missing
//! heartbeats or a reconnection make it anew from the last stream sequence that was seen; the sequence that the stream
//! had at the start counts as seen, so that a watch that was idle does not begin from the first message again. It says
//! once when all that was there at the start has come. Nothing runs while nobody polls it: flow control then stops
//! the server, and what overflows is fetched again because of the gap. A user who may not answer flow control gets what
//! there is in windows of some 2 MB, each from a consumer of its own. It knows nothing of keys, values or objects.

use super::error::{Refusal, StoreError};
use super::stream::{Stored, Stream, back_off};
use async_nats::connection::State;
use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// Heartbeats of a consumer that lives long.
pub(crate) const WATCH_HEARTBEAT: Duration = Duration::from_secs(2);
/// Heartbeats of a consumer that reads what is there: when messages are purged under it, the next one ends the wait.
pub(crate) const READ_HEARTBEAT: Duration = Duration::from_millis(500);
/// The server removes a consumer whose inbox nobody listens to after this long, should the deletion get lost.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);
/// How often an idle consumer looks whether the connection was made anew.
const TICK: Duration = Duration::from_millis(500);
/// How long refusals (a missing bucket, a limit) are borne before they are believed: a server that starts gives them too.
const BELIEVE_AFTER: Duration = Duration::from_secs(10);
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
}

#[derive(Debug)]
struct Live {
    name: String,
    subscriber: Subscriber,
    sequence: u64,
    seen: Instant,
    /// How often the connection had been made when this consumer was.
    connects: u64,
    /// When flow control was answered last.
    answered: Option<Instant>,
    /// Heartbeats by which the server has not heard it, since the last message.
    stalls: u32,
}

struct Inbox {
    subject: String,
    subscriber: Subscriber,
}

#[derive(Debug, PartialEq, Eq)]
enum Initial {
    Coming,
    /// The last of them was delivered; saying so is next.
    Over,
    Said,
}

#[derive(serde::Deserialize)]
struct ConsumerInfo {
    name: String,
    #[serde(default)]
    num_pending: u64,
}

impl OrderedConsumer {
    /// Makes the consumer; what goes wrong here is an error at once.
    pub(crate) async fn open(stream: Stream, options: Options) -> Result<Self, StoreError> {
        let info = stream.info().await?;
        let head = info.state.last_seq;
        let position = match options.start {
            Start::All | Start::Last => 0,
            Start::From(sequence) => sequence.saturating_sub(1),
            Start::New => head,
        };
        let mut consumer = Self {
            stream,
            options,
            live: None,
            position,
            head,
            created: info.created,
            initial_end: head,
            initial: Initial::Coming,
            attempt: 0,
            unheard: false,
            by_sequence: false,
            ended: false,
        };
        let inbox = consumer.subscribe().await?;
        consumer.create(inbox).await?;
        Ok(consumer)
    }

    /// The deliveries as a stream, which ends after an error that repeating does not mend.
    pub(crate) fn into_stream(self) -> Deliveries {
        let next =
            |mut consumer: Self| async move { consumer.next().await.map(|item| (item, consumer)) };
        futures_util::stream::unfold(self, next).boxed()
    }

    /// The next delivery.
    pub(crate) async fn next(&mut self) -> Option<Result<Delivery, StoreError>> {
        while !self.ended {
            if self.initial == Initial::Over {
                self.initial = Initial::Said;
                self.position = self.position.max(self.initial_end);
                return Some(Ok(Delivery::CaughtUp));
            }
            let Some(live) = &mut self.live else {
                if let Err(error) = self.resume().await {
                    self.ended = true;
                    return Some(Err(error));
                }
                continue;
            };
            let waits_in_vain = self.unheard && live.answered.is_some();
            let tick = if waits_in_vain {
                STALL_TICK
            } else {
                TICK.min(self.options.heartbeat)
            };
            match tokio::time::timeout(tick, live.subscriber.next()).await {
                Ok(Some(message)) => match self.accept(message).await {
                    Ok(Some(delivery)) => return Some(Ok(delivery)),
                    Ok(None) => {}
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                },
                Ok(None) => self.abandon(),
                Err(_) => {
                    let silent = live.seen.elapsed() > self.options.heartbeat.mul_f32(2.5);
                    if waits_in_vain || silent || live.connects != connects(&self.stream) {
                        self.abandon();
                    }
                }
            }
        }
        None
    }

    /// Takes a message of the inbox: status messages are dealt with here.
    async fn accept(&mut self, message: Message) -> Result<Option<Delivery>, StoreError> {
        let Some(live) = &mut self.live else {
            return Ok(None);
        };
        live.seen = Instant::now();
        match message.status {
            None => {}
            Some(StatusCode::IDLE_HEARTBEAT) => {
                self.heartbeat(&message).await;
                return Ok(None);
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
        self.head = self.head.max(place.stream_sequence);
        let initial = self.initial == Initial::Coming;
        if initial && (place.pending == 0 || place.stream_sequence >= self.initial_end) {
            self.initial = Initial::Over;
        }
        if place.stream_sequence <= self.position {
            return Ok(None);
        }
        let stored = Stored {
            subject: message.subject.into_string(),
            sequence: place.stream_sequence,
            headers: message.headers.unwrap_or_default(),
            payload: message.payload,
            created: place.created,
        };
        let wanted = !initial || !self.by_sequence || self.is_last(&stored).await?;
        self.position = place.stream_sequence;
        Ok(wanted.then_some(Delivery::Message(stored, place.pending)))
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
        let last = header("Nats-Last-Consumer").and_then(|sequence| sequence.parse::<u64>().ok());
        match (&self.live, last) {
            (Some(live), Some(last)) if last != live.sequence => self.abandon(),
            _ => {
                self.attempt = 0;
                // Nothing to send, and nothing under way: what was still to come has been purged.
                if self.initial == Initial::Coming {
                    self.initial = Initial::Over;
                }
            }
        }
    }

    /// Makes the consumer anew, from where it was, however long that takes.
    async fn resume(&mut self) -> Result<(), StoreError> {
        let mut refused_since = None;
        loop {
            if self.attempt > 0 {
                let (base, max) = (Duration::from_millis(100), Duration::from_secs(5));
                tokio::time::sleep(back_off(self.attempt - 1, base, max)).await;
            }
            self.attempt += 1;
            let mut inbox = self.subscribe().await?;
            let client = self.stream.js.client();
            while client.connection_state() != State::Connected {
                // Nothing can come; the wait ends early only when the connection has been given up.
                let wait = tokio::time::timeout(Duration::from_millis(50), inbox.subscriber.next());
                if let Ok(None) = wait.await {
                    break;
                }
            }
            let error = match self.recreate(inbox).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            tracing::debug!(stream = ?self.stream, %error, "a consumer could not be made again yet");
            if matches!(error, StoreError::Timeout | StoreError::Unavailable { .. }) {
                refused_since = None;
            } else if refused_since.get_or_insert_with(Instant::now).elapsed() > BELIEVE_AFTER {
                return Err(error);
            }
        }
    }

    async fn recreate(&mut self, inbox: Inbox) -> Result<(), StoreError> {
        let info = self.stream.info().await?;
        if info.created != self.created {
            // Another bucket of the same name: everything in it is new.
            self.created = info.created;
            self.position = 0;
            self.head = info.state.last_seq;
        } else if info.state.last_seq < self.head {
            // The server lost its last messages, and gives their numbers to new ones.
            self.position = self.position.min(info.state.last_seq);
            self.head = info.state.last_seq;
        }
        self.create(inbox).await
    }

    /// An inbox, before the consumer: nothing is to be delivered to nobody.
    async fn subscribe(&self) -> Result<Inbox, StoreError> {
        let client = self.stream.js.client();
        let subject = client.new_inbox();
        match client.subscribe(subject.clone()).await {
            Ok(subscriber) => Ok(Inbox {
                subject,
                subscriber,
            }),
            Err(_) => Err(StoreError::Unavailable {
                reason: "the connection is closed".to_owned(),
            }),
        }
    }

    async fn create(&mut self, inbox: Inbox) -> Result<(), StoreError> {
        let connects = connects(&self.stream);
        let mut config = serde_json::json!({
            "deliver_subject": inbox.subject,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": true,
            "idle_heartbeat": nanos(self.options.heartbeat),
            "inactive_threshold": nanos(INACTIVE_THRESHOLD),
            "mem_storage": true,
            "num_replicas": 1,
        });
        if self.options.headers_only {
            config["headers_only"] = true.into();
        }
        match self.options.filters.as_slice() {
            [filter] => config["filter_subject"] = filter.as_str().into(),
            filters => config["filter_subjects"] = filters.into(),
        }
        let last_ones = self.options.start == Start::Last && self.initial == Initial::Coming;
        // Beginning with the last ones again never comes further than one window.
        self.by_sequence = last_ones && self.unheard && self.position > 0;
        if last_ones && !self.by_sequence {
            // Interrupted in the initial messages, it begins with the last ones again and passes over what it had:
            // by sequence, revisions come that are not the last, and each must be asked for.
            config["deliver_policy"] = "last_per_subject".into();
        } else {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = (self.position + 1).into();
        }
        let name = self.stream.name();
        let body = serde_json::json!({ "stream_name": name, "config": config });
        let subject = format!("CONSUMER.CREATE.{name}");
        let made: Result<ConsumerInfo, Refusal> = self.stream.request(subject, &body).await;
        let made = made.map_err(|refusal| refusal.about(self.stream.bucket()))?;
        if made.num_pending == 0 && self.initial == Initial::Coming {
            self.initial = Initial::Over;
        }
        self.live = Some(Live {
            name: made.name,
            subscriber: inbox.subscriber,
            sequence: 0,
            seen: Instant::now(),
            connects,
            answered: None,
            stalls: 0,
        });
        Ok(())
    }

    /// Gives the consumer up, and has it deleted.
    fn abandon(&mut self) {
        let Some(live) = self.live.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let stream = self.stream.clone();
        runtime.spawn(async move {
            // Nobody waits for the answer: what gets lost is removed for its inactivity.
            let subject = format!("CONSUMER.DELETE.{}.{}", stream.name(), live.name);
            let request = async_nats::Request::new();
            let _ = stream.js.send_request(subject, request).await;
        });
    }
}

impl Drop for OrderedConsumer {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn connects(stream: &Stream) -> u64 {
    let statistics = stream.js.client().statistics();
    statistics.connects.load(Ordering::Relaxed)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where a message stands, as its reply subject says (ADR-15): nine tokens, or eleven and more with the domain and the
/// account.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    stream_sequence: u64,
    consumer_sequence: u64,
    created: SystemTime,
    pending: u64,
}

impl Place {
    fn parse(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let skip = match rest.split('.').count() {
            7 => 3,
            9.. => 5,
            _ => return None,
        };
        let mut numbers = rest.split('.').skip(skip).map(str::parse::<u64>);
        let mut number = || numbers.next()?.ok();
        Some(Self {
            stream_sequence: number()?,
            consumer_sequence: number()?,
            created: SystemTime::UNIX_EPOCH + Duration::from_nanos(number()?),
            pending: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_reply_subject_are_read() {
        let place = Place {
            stream_sequence: 100,
            consumer_sequence: 7,
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            pending: 42,
        };
        let short = Place::parse("$JS.ACK.s.c.3.100.7.1000000000.42").unwrap();
        assert_eq!(short, place);
        let long = Place::parse("$JS.ACK.hub.hash.s.c.3.100.7.1000000000.42.more").unwrap();
        assert_eq!(long, place);
        assert_eq!(Place::parse("$JS.ACK.s.c.3.100.7.1000000000"), None);
        assert_eq!(Place::parse("_INBOX.x"), None);
    }
}
