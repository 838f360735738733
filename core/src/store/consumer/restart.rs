//! How a consumer is made, and made again: from where it was, however long that takes, with pauses that grow.

use super::{BELIEVE_AFTER, Initial, LOOK_AFTER, Live, OrderedConsumer, Start, Step};
use crate::store::error::{Refusal, StoreError, closed, unavailable};
use crate::store::stream::{Cluster, StreamInfo, back_off, nanos, repeated};
use async_nats::Subscriber;
use async_nats::connection::State;
use futures_util::StreamExt as _;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The server removes a consumer whose inbox nobody listens to after this long, should the deletion get lost.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);
/// A replica that has nothing to bring says with a heartbeat how far it is: so many times as often as heartbeats come
/// otherwise, since the initial messages may wait for that.
pub(super) const REPLICA_HEARTBEATS: u32 = 5;
/// How long the first attempt to make a consumer again waits for an answer; each one waits twice as long. While a leader is
/// elected nobody answers, and whoever waits for that has it late.
const FIRST_WAIT: Duration = Duration::from_secs(1);

struct Inbox {
    subject: String,
    subscriber: Subscriber,
}

#[derive(serde::Deserialize)]
struct ConsumerInfo {
    name: String,
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    cluster: Option<Cluster>,
}

impl OrderedConsumer {
    /// Asks, once in a while, whether the stream has a leader, and how far it is. A consumer on a server that is cut off from
    /// the others, with us, says with every heartbeat that there is nothing new; nobody there can answer for the stream any
    /// more. One on a server that lags behind says the same, and has not come by the next look to where the leader was.
    pub(super) async fn look_for_a_leader(&mut self) {
        if !self.replicated || self.looked.elapsed() < LOOK_AFTER {
            return;
        }
        self.looked = Instant::now();
        let looked = self.led_info(FIRST_WAIT * 2).await;
        match (looked, &mut self.live) {
            (Ok(info), Some(live)) if live.reached >= live.floor => {
                live.floor = info.state.last_seq
            }
            (Ok(_), _) => {
                tracing::debug!(stream = ?self.stream, "a replica lags behind, and another one is tried");
                self.abandon();
            }
            (Err(error), _) => {
                tracing::debug!(stream = ?self.stream, %error, "a consumer is given up");
                self.abandon();
            }
        }
    }

    /// Settings and state, unless nobody leads the stream.
    async fn led_info(&self, wait: Duration) -> Result<StreamInfo, StoreError> {
        let info = within(Some(wait), self.stream.info()).await?;
        if info.has_leader() {
            return Ok(info);
        }
        Err(unavailable("the stream has no leader"))
    }

    /// Makes the consumer anew, from where it was, however long that takes.
    pub(super) async fn resume(&mut self) -> Result<(), StoreError> {
        let mut refused_since = None;
        loop {
            if self.attempt > 0 {
                let (base, max) = (Duration::from_millis(100), Duration::from_secs(5));
                tokio::time::sleep(back_off(self.attempt - 1, base, max)).await;
            }
            self.attempt += 1;
            // Refused where the connection was closed.
            let mut inbox = self.subscribe().await?;
            let client = self.stream.js.client();
            while client.connection_state() != State::Connected {
                // Nothing can come; the wait ends early only when the connection has been given up.
                let wait = tokio::time::timeout(Duration::from_millis(50), inbox.subscriber.next());
                if let Ok(None) = wait.await {
                    break;
                }
            }
            let wait = FIRST_WAIT * (1 << (self.attempt - 1).min(3));
            let error = match self.recreate(wait).await {
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

    async fn recreate(&mut self, wait: Duration) -> Result<(), StoreError> {
        let info = self.led_info(wait).await?;
        let last = info.state.last_seq;
        self.replicated = info.config.num_replicas > 1;
        let another = info.created != self.created;
        // The server lost its last messages, and gives their numbers to new ones. A replica may just be behind.
        let shorter = last < self.head && !(self.replicated && self.lags_behind(last).await);
        if another || shorter {
            self.created.clone_from(&info.created);
            self.head = last;
            self.initial_end = last;
            self.covered = 0;
            self.interruption = None;
            // Everything in another bucket of the same name is new.
            self.position = if another { 0 } else { self.position.min(last) };
            if self.starts_over {
                self.start_over();
            }
        } else if self.initial == Initial::Said {
            self.look_for_gaps(info.state.first_seq, last);
        }
        self.create(&info, Some(wait)).await
    }

    fn start_over(&mut self) {
        self.position = 0;
        self.initial = Initial::Coming;
        if self.options.start != Start::All {
            self.options.start = Start::Last;
        }
        self.said.clear();
        self.said.push_back(Step::Reset);
    }

    /// Whether the stream's end is only told late: by a leader that was cut off, say, or has just been chosen.
    async fn lags_behind(&self, told: u64) -> bool {
        for attempt in 0..4 {
            let (base, max) = (Duration::from_millis(100), Duration::from_secs(1));
            tokio::time::sleep(back_off(attempt, base, max)).await;
            match self.stream.info().await {
                Ok(info) if info.created != self.created => return false,
                Ok(info) if info.state.last_seq > told => return true,
                _ => {}
            }
        }
        false
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
            Err(_) => Err(closed()),
        }
    }

    /// Makes the consumer of the stream that was just asked; the answer may take `wait`, or as long as any.
    pub(super) async fn create(
        &mut self,
        info: &StreamInfo,
        wait: Option<Duration>,
    ) -> Result<(), StoreError> {
        let connects = self.stream.connects();
        let heartbeat = match self.replicated && self.initial == Initial::Coming {
            true => self.options.heartbeat / REPLICA_HEARTBEATS,
            false => self.options.heartbeat,
        };
        let mut config = serde_json::json!({
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": true,
            "idle_heartbeat": nanos(heartbeat),
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
        let made = within(wait, repeated(|| self.try_create(body.clone())));
        let (made, inbox) = made.await?;
        let led = info.leads(made.cluster.as_ref());
        let floor = info.state.last_seq;
        self.contact.opened();
        let now = Instant::now();
        self.looked = now;
        self.live = Some(Live {
            name: made.name,
            subscriber: inbox.subscriber,
            sequence: 0,
            made: now,
            seen: now,
            floor,
            led,
            reached: 0,
            drained: made.num_pending == 0,
            connects,
            answered: None,
            stalls: 0,
        });
        if made.num_pending == 0 {
            if self.initial == Initial::Coming {
                if self.has_it_all() {
                    self.initial = Initial::Over;
                }
            } else if !self.replicated {
                self.covered = self.covered.max(floor);
            }
        }
        Ok(())
    }

    /// One attempt, with an inbox of its own: a consumer of which nothing is heard delivers to nobody, and the server removes it.
    async fn try_create(&self, mut body: Value) -> Result<(ConsumerInfo, Inbox), StoreError> {
        let (stream, inbox) = (&self.stream, self.subscribe().await?);
        body["config"]["deliver_subject"] = inbox.subject.as_str().into();
        let subject = format!("CONSUMER.CREATE.{}", stream.name());
        let made: Result<ConsumerInfo, Refusal> = stream.request(subject, &body).await;
        let made = made.map_err(|refusal| refusal.about(stream.bucket()))?;
        Ok((made, inbox))
    }
}

/// The answer, unless it takes longer than that.
async fn within<T>(
    wait: Option<Duration>,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match wait {
        Some(wait) => tokio::time::timeout(wait, answer)
            .await
            .unwrap_or(Err(StoreError::Timeout)),
        None => answer.await,
    }
}
