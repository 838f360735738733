//! The chunks of an object, fetched a window at a time: what downloads and ranges are made of.
//!
//! A pull consumer that asks for no more than is wanted, and for no more at once than fits the window: so memory is bounded
//! whatever the reader does, and of a range nothing is fetched that is not in it. A gap, a silence or a new connection make it
//! anew behind the last chunk that came. It knows nothing of digests.

use super::super::error::{Refusal, StoreError, closed, unavailable};
use super::super::stream::{Stream, back_off, nanos, repeated};
use super::window::passes;
use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::{BatchConfig, Config};
use async_nats::jetstream::consumer::{Consumer, Info};
use async_nats::{Message, StatusCode, Subscriber, jetstream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is asked for and not yet handed over, in bytes. Beside the server, too: where it shares the cores with us, either has
/// to wait for one by milliseconds, in which others read megabytes.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
const WINDOW: u64 = 256;
/// One chunk of so many is kept for a while, and of those as many as are a quarter of the window.
const KEPT_OF: u64 = 16;
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
    /// Some of the chunks that were handed over. Whenever all of them are gone, glibc's allocator gives their memory back, and has
    /// the kernel clear as much anew for those that come; where some are left here and there, it does not: a tenth less CPU
    /// time for a download.
    kept: VecDeque<Bytes>,
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
            kept: VecDeque::new(),
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
            let message = match tokio::time::timeout(TICK, live.subscriber.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.abandon();
                    continue;
                }
                Err(_) => {
                    if live.heard.elapsed() > SILENCE || live.connects != self.stream.connects() {
                        self.abandon();
                        self.bear(Refusal::Other(StoreError::Timeout)).await?;
                    }
                    continue;
                }
            };
            live.heard = Instant::now();
            match message.status {
                None => {
                    if let Some(chunk) = self.accept(message) {
                        return Ok(Some(chunk));
                    }
                }
                Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => {
                    let since = *self.empty_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > LAG {
                        return Ok(None);
                    }
                    self.abandon();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                // The consumer is gone, or its leader.
                Some(_) => {
                    self.abandon();
                    self.pause().await;
                }
            }
        }
    }

    /// Takes a chunk, if it is the next one.
    fn accept(&mut self, message: Message) -> Option<Bytes> {
        let live = self.live.as_mut()?;
        let context = self.stream.js.clone();
        let message = jetstream::Message { message, context };
        let place = message.info().ok()?;
        if place.consumer_sequence != live.sequence + 1 {
            self.abandon();
            return None;
        }
        self.from = place.stream_sequence + 1;
        let chunk = message.message.payload;
        live.sequence += 1;
        live.asked = live.asked.saturating_sub(1);
        if live.sequence.is_multiple_of(KEPT_OF) {
            self.kept.push_back(chunk.clone());
            if self.kept.len() as u64 > self.window / 4 {
                self.kept.pop_front();
            }
        }
        self.left.less(chunk.len() as u64);
        self.began = true;
        (self.attempt, self.empty_since, self.refused_since) = (0, None, None);
        Some(chunk)
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
            return Err(Refusal::Other(closed()));
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
            return Err(Refusal::Other(unavailable("the connection is broken")));
        }
        let connects = self.stream.connects();
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(inbox.clone()).await;
        let subscriber = subscriber.map_err(|_| Refusal::Other(closed()))?;
        let name = self.stream.name();
        let mut config = serde_json::json!({
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "filter_subject": self.subject,
            "inactive_threshold": nanos(INACTIVE_THRESHOLD),
            "mem_storage": true,
            "num_replicas": 1,
            "deliver_policy": "all",
        });
        if self.from > 0 {
            config["deliver_policy"] = "by_start_sequence".into();
            config["opt_start_seq"] = self.from.into();
        }
        let body = serde_json::json!({ "stream_name": name, "config": config });
        // One that was made all the same is removed when nobody has asked it for anything.
        let subject = format!("CONSUMER.CREATE.{name}");
        let made = repeated(|| self.stream.request(subject.clone(), &body));
        let made: Info = made.await?;
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
        self.stream
            .delete_consumer(&live.consumer.cached_info().name);
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.abandon();
    }
}
