//! The chunks of an object, fetched a window at a time: what downloads and ranges are made of.
//!
//! A pull consumer that asks for no more than is wanted, and for no more at once than fits the window: so memory is bounded
//! whatever the reader does, and of a range nothing is fetched that is not in it. A gap, a silence or a new connection make it
//! anew behind the last chunk that came. It knows nothing of digests.

use super::super::error::{Refusal, StoreError};
use super::super::stream::{Stream, back_off};
use super::window::{connects, passes};
use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::{BatchConfig, Config};
use async_nats::jetstream::consumer::{Consumer, Info};
use async_nats::{StatusCode, Subscriber, jetstream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is asked for and not yet handed over, in bytes. Beside the server, too: where it shares the cores with us, either has
/// to wait for one by milliseconds, in which others read megabytes.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
const WINDOW: u64 = 256;
/// One chunk of so many is kept for a while: so many of them, of so many bytes. See [`Ballast`].
const KEPT_OF: u64 = 16;
const KEPT: usize = 16;
const KEPT_BYTES: usize = 2 * 1024 * 1024;
/// The server removes a consumer that nobody asks for this long. A reader that pauses longer gets another one.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(500);
/// How long nothing may come of what was asked for.
const SILENCE: Duration = Duration::from_secs(3);
/// How long there may be nothing where a chunk should be: the replica that was asked may be behind.
const LAG: Duration = Duration::from_secs(1);
/// How long refusals are borne before they are believed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is still to come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// So many chunks.
    Chunks(u64),
    /// So many bytes, in chunks that are no larger than that.
    Bytes(u64, u64),
}

impl Left {
    /// As many chunks as there are at least.
    fn chunks(self) -> u64 {
        match self {
            Left::Chunks(chunks) => chunks.max(1),
            Left::Bytes(bytes, largest) => bytes.div_ceil(largest.max(1)).max(1),
        }
    }

    fn less(&mut self, size: u64) {
        match self {
            Left::Chunks(chunks) => *chunks = chunks.saturating_sub(1),
            Left::Bytes(bytes, _) => *bytes = bytes.saturating_sub(size),
        }
    }
}

pub(super) struct Fetch {
    stream: Stream,
    subject: String,
    /// The stream's sequence from which on the next chunk is.
    from: u64,
    left: Left,
    /// How many may be on their way at once.
    window: u64,
    /// Some chunk has come.
    began: bool,
    live: Option<Live>,
    /// Attempts since the last chunk.
    attempt: u32,
    /// Since when there is nothing where a chunk should be.
    empty_since: Option<Instant>,
    refused_since: Option<Instant>,
    ballast: Ballast,
}

struct Live {
    consumer: Consumer<Config>,
    inbox: String,
    subscriber: Subscriber,
    sequence: u64,
    /// Chunks that were asked for and have not come.
    asked: u64,
    heard: Instant,
    connects: u64,
}

impl Fetch {
    /// From this sequence of the stream on, in chunks of about that size, in bytes.
    pub(super) fn new(stream: Stream, subject: String, from: u64, left: Left, size: u64) -> Self {
        Self {
            stream,
            subject,
            from,
            left,
            window: (WINDOW_BYTES / size.max(1)).clamp(1, WINDOW),
            began: false,
            live: None,
            attempt: 0,
            empty_since: None,
            refused_since: None,
            ballast: Ballast::default(),
        }
    }

    /// The next chunk; `None` where there should be one and is none.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            if self.live.is_none()
                && let Err(refusal) = self.open().await
            {
                self.bear(refusal).await?;
                continue;
            }
            if let Err(refusal) = self.ask().await {
                self.bear(refusal).await?;
                continue;
            }
            let Some(live) = &mut self.live else { continue };
            match tokio::time::timeout(TICK, live.subscriber.next()).await {
                Ok(Some(message)) => {
                    live.heard = Instant::now();
                    match message.status {
                        None => {}
                        Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => {
                            let since = *self.empty_since.get_or_insert_with(Instant::now);
                            if since.elapsed() > LAG {
                                return Ok(None);
                            }
                            self.abandon();
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                        // The consumer is gone, or its leader.
                        Some(_) => {
                            self.abandon();
                            self.pause().await;
                            continue;
                        }
                    }
                    let context = self.stream.js.clone();
                    let message = jetstream::Message { message, context };
                    let Ok(place) = message.info() else { continue };
                    if place.consumer_sequence != live.sequence + 1 {
                        self.abandon();
                        continue;
                    }
                    let next = place.stream_sequence + 1;
                    let payload = message.message.payload;
                    live.sequence += 1;
                    live.asked = live.asked.saturating_sub(1);
                    self.from = next;
                    self.left.less(payload.len() as u64);
                    self.began = true;
                    self.ballast.take(&payload);
                    (self.attempt, self.empty_since, self.refused_since) = (0, None, None);
                    return Ok(Some(payload));
                }
                Ok(None) => self.abandon(),
                Err(_) => {
                    if live.heard.elapsed() > SILENCE || live.connects != connects(&self.stream) {
                        self.abandon();
                        self.bear(Refusal::Other(StoreError::Timeout)).await?;
                    }
                }
            }
        }
    }

    /// Asks for more, where there is room for it.
    async fn ask(&mut self) -> Result<(), Refusal> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        let wanted = self.left.chunks();
        let room = self.window.min(wanted).saturating_sub(live.asked);
        // By quarters, so that there is always something on its way; or the rest.
        if room == 0 || live.asked > 0 && room < (self.window / 4).max(1) && wanted > self.window {
            return Ok(());
        }
        let batch = BatchConfig {
            batch: usize::try_from(room).unwrap_or(1),
            no_wait: true,
            ..BatchConfig::default()
        };
        let asked = live
            .consumer
            .request_batch(batch, live.inbox.clone().into());
        if asked.await.is_err() {
            return Err(closed());
        }
        if live.asked == 0 {
            live.heard = Instant::now();
        }
        live.asked += room;
        Ok(())
    }

    /// Waits a little after a refusal, or believes it.
    async fn bear(&mut self, refusal: Refusal) -> Result<(), StoreError> {
        let error = self.stream.explain(refusal).await;
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        // What never came may not be allowed to: that shows itself as silence, too.
        let patience = if self.began { PATIENCE } else { PATIENCE / 3 };
        if !passes(&error) || since.elapsed() > patience {
            return Err(error);
        }
        self.pause().await;
        Ok(())
    }

    async fn pause(&mut self) {
        let (base, max) = (Duration::from_millis(50), Duration::from_secs(2));
        tokio::time::sleep(back_off(self.attempt, base, max)).await;
        self.attempt += 1;
    }

    async fn open(&mut self) -> Result<(), Refusal> {
        let client = self.stream.js.client();
        if client.connection_state() != State::Connected {
            let reason = "the connection is broken".to_owned();
            return Err(Refusal::Other(StoreError::Unavailable { reason }));
        }
        let connects = connects(&self.stream);
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(inbox.clone()).await;
        let subscriber = subscriber.map_err(|_| closed())?;
        let name = self.stream.name();
        let mut config = serde_json::json!({
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "filter_subject": self.subject,
            "inactive_threshold": u64::try_from(INACTIVE_THRESHOLD.as_nanos()).unwrap_or(0),
            "mem_storage": true,
            "num_replicas": 1,
            "deliver_policy": "all",
        });
        if self.from > 0 {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = self.from.into();
        }
        let body = serde_json::json!({ "stream_name": name, "config": config });
        let made: Info = self
            .stream
            .request(format!("CONSUMER.CREATE.{name}"), &body)
            .await?;
        self.live = Some(Live {
            consumer: Consumer::new(Config::default(), made, self.stream.js.clone()),
            inbox,
            subscriber,
            sequence: 0,
            asked: 0,
            heard: Instant::now(),
            connects,
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
        let name = live.consumer.cached_info().name.clone();
        runtime.spawn(async move {
            // Nobody waits for the answer: what gets lost is removed for its inactivity.
            let subject = format!("CONSUMER.DELETE.{}.{name}", stream.name());
            let request = async_nats::Request::new();
            let _ = stream.js.send_request(subject, request).await;
        });
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Some of the chunks that were handed over.
///
/// Whenever all of them are gone, the system's allocator gives its memory back, and has the kernel clear as much anew for those
/// that come. Where some are left here and there, it does not: a tenth less CPU time for a download.
#[derive(Default)]
struct Ballast {
    taken: u64,
    kept: VecDeque<Bytes>,
    bytes: usize,
}

impl Ballast {
    fn take(&mut self, chunk: &Bytes) {
        self.taken += 1;
        if self.taken.is_multiple_of(KEPT_OF) {
            self.bytes += chunk.len();
            self.kept.push_back(chunk.clone());
        }
        while self.kept.len() > KEPT || self.bytes > KEPT_BYTES {
            self.bytes -= self.kept.pop_front().map_or(self.bytes, |it| it.len());
        }
    }
}

fn closed() -> Refusal {
    let reason = "the connection is closed".to_owned();
    Refusal::Other(StoreError::Unavailable { reason })
}
