//! The chunks of an object on their way to the stream: no more than a window of them, and in their order whatever happens.
//!
//! Each is kept until it is known to stand behind the one before it. When one is refused for now, or the connection breaks,
//! nothing new is sent until everything in the window is in its place: what has no place is sent again under its message id, so
//! that it is stored once, and what overtook its predecessor is taken out and sent anew. It knows nothing of metadata; what
//! becomes of chunks that nothing refers to in the end, `Chunks` decides when it is dropped.

use super::super::error::{Refusal, StoreError, closed, other, unavailable};
use super::super::stream::{Stream, back_off};
use super::commit::purge_again;
use super::info::chunk_subject;
use async_nats::connection::State;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::response::Response;
use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

/// Without a bound, large uploads fail on replicated buckets; with one, memory has it too.
pub(super) const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// The same as a count, for small chunks.
const WINDOW: usize = 64;
/// How often it is looked whether the connection was made anew.
const TICK: Duration = Duration::from_millis(250);
/// How long nothing may be acknowledged while something is on its way.
const SILENCE: Duration = Duration::from_secs(5);
/// How long an upload bears it that no chunk gets further: longer than the election of a leader.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same when the first chunk has no answer: a chunk that may not be published never has one.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// "Duplicate message id is in process", and "too many requests": both pass.
const PASSING: [u64; 2] = [10158, 10167];
const NO_MESSAGE_FOUND: [u64; 2] = [10037, 10043];

/// With it, a chunk says the digest of the object up to its own end: by that an upload that goes on knows what is there.
pub(super) const PREFIX_DIGEST: &str = "Nats-Service-Prefix-Digest";

#[derive(Debug)]
struct Chunk {
    payload: Bytes,
    prefix_digest: Option<String>,
    /// Its sequence on the stream.
    place: Option<u64>,
    /// How often it was sent under an id of its own.
    attempt: u32,
    /// The server has said something of it since it was sent: nothing of it is on its way.
    answered: bool,
}

/// The chunks of an object that does not exist yet.
pub(super) struct Chunks {
    pub(super) stream: Stream,
    pub(super) nuid: String,
    /// They stay when the upload fails: it can go on later.
    pub(super) keep: bool,
    /// Something was sent that nothing refers to yet.
    pub(super) orphans: bool,
    /// It was not all smooth, so that it is worth while to count what is there.
    pub(super) mended: bool,
    /// Bytes that are known to be in their place.
    pub(super) stored: u64,
    inbox: String,
    /// `None` before the first chunk.
    acks: Option<Subscriber>,
    /// What is not known to be in its place, in order.
    window: VecDeque<Chunk>,
    window_bytes: usize,
    /// The index of the first in the window.
    first: u64,
    /// The sequence of the last one that is in its place.
    last: u64,
    /// Where the counting of attempts begins.
    base: u32,
    /// The last acknowledgement, or the first chunk in an empty window.
    heard: Instant,
    /// How often the connection had been made by then.
    connects: u64,
}

#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
}

impl Chunks {
    pub(super) fn new(stream: &Stream, nuid: String, keep: bool) -> Self {
        Self {
            stream: stream.clone(),
            nuid,
            keep,
            orphans: false,
            mended: false,
            stored: 0,
            inbox: stream.js.client().new_inbox(),
            acks: None,
            window: VecDeque::new(),
            window_bytes: 0,
            first: 0,
            last: 0,
            base: 0,
            heard: Instant::now(),
            connects: stream.connects(),
        }
    }

    /// Message ids that no earlier attempt of this upload had: the server drops what it has seen, and that may be gone.
    pub(super) fn fresh_ids(&mut self) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.base = since.map_or(1, |since| since.as_secs() as u32);
    }

    /// Takes over one that is there already.
    pub(super) fn adopt(&mut self, sequence: u64, size: u64) {
        self.first += 1;
        self.last = sequence;
        self.stored += size;
        self.orphans = true;
        self.mended = true;
    }

    /// Sends one, when there is room for it.
    pub(super) async fn send(
        &mut self,
        payload: Bytes,
        prefix_digest: Option<String>,
    ) -> Result<(), StoreError> {
        let full = |chunks: &Self| {
            chunks.window.len() >= WINDOW
                || chunks.window_bytes + payload.len() > WINDOW_BYTES && !chunks.window.is_empty()
        };
        while full(self) {
            self.settle().await?;
        }
        if self.window.is_empty() {
            self.heard = Instant::now();
        }
        self.window_bytes += payload.len();
        self.window.push_back(Chunk {
            payload,
            prefix_digest,
            place: None,
            attempt: self.base,
            answered: false,
        });
        match self.publish(self.window.len() - 1).await {
            Ok(()) => Ok(()),
            Err(refusal) => self.mend(refusal).await,
        }
    }

    /// Returns when all of them are in their place.
    pub(super) async fn finish(&mut self) -> Result<(), StoreError> {
        while !self.window.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for one acknowledgement; when it is a bad one, until everything is in its place all the same.
    async fn settle(&mut self) -> Result<(), StoreError> {
        match self.acknowledged().await {
            Ok(()) if self.in_order() => Ok(()),
            Ok(()) => {
                let error = unavailable("chunks were stored out of order");
                self.mend(Refusal::Other(error)).await
            }
            Err(refusal) => self.mend(refusal).await,
        }
    }

    async fn publish(&mut self, at: usize) -> Result<(), Refusal> {
        let client = self.stream.js.client();
        if self.acks.is_none() {
            let subject = format!("{}.*.*", self.inbox);
            let acks = client.subscribe(subject).await;
            self.acks = Some(acks.map_err(|_| Refusal::Other(closed()))?);
        }
        let Some(chunk) = self.window.get_mut(at) else {
            return Ok(());
        };
        chunk.answered = false;
        let (index, attempt) = (self.first + at as u64, chunk.attempt);
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{}-{index}-{attempt}", self.nuid));
        if let Some(digest) = &chunk.prefix_digest {
            headers.insert(PREFIX_DIGEST, digest.as_str());
        }
        let subject = chunk_subject(self.stream.bucket(), &self.nuid);
        let reply = format!("{}.{index}.{attempt}", self.inbox);
        let payload = chunk.payload.clone();
        self.orphans = true;
        let sent = client.publish_with_reply_and_headers(subject, reply, headers, payload);
        sent.await.map_err(|_| Refusal::Other(closed()))
    }

    /// Waits for the acknowledgement of something in the window.
    async fn acknowledged(&mut self) -> Result<(), Refusal> {
        loop {
            let Some(acks) = &mut self.acks else {
                return Ok(());
            };
            match tokio::time::timeout(TICK, acks.next()).await {
                Ok(Some(message)) => {
                    if self.accept(&message)? {
                        return Ok(());
                    }
                }
                Ok(None) => return Err(Refusal::Other(closed())),
                Err(_) => {
                    if self.heard.elapsed() > SILENCE || self.connects != self.stream.connects() {
                        return Err(Refusal::Other(StoreError::Timeout));
                    }
                }
            }
        }
    }

    /// Takes an acknowledgement: whether it was one of the window.
    fn accept(&mut self, message: &Message) -> Result<bool, Refusal> {
        let mut tokens = message.subject.rsplit('.');
        let mut number = || tokens.next()?.parse::<u64>().ok();
        let (attempt, index) = (number(), number());
        let at = index.and_then(|index| usize::try_from(index.checked_sub(self.first)?).ok());
        let Some(chunk) = at.and_then(|at| self.window.get_mut(at)) else {
            return Ok(false);
        };
        if attempt != Some(u64::from(chunk.attempt)) {
            return Ok(false);
        }
        chunk.answered = true;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Refusal::NoResponders);
        }
        match serde_json::from_slice::<Response<Ack>>(&message.payload) {
            Ok(Response::Ok(ack)) => chunk.place = Some(ack.seq),
            Ok(Response::Err { error }) => return Err((&error).into()),
            Err(error) => return Err(Refusal::Other(other(&error))),
        }
        self.heard = Instant::now();
        while let Some(front) = self.window.front() {
            match front.place {
                Some(place) if place > self.last => self.last = place,
                _ => break,
            }
            let size = front.payload.len();
            self.window_bytes -= size;
            self.stored += size as u64;
            self.first += 1;
            self.window.pop_front();
        }
        Ok(true)
    }

    /// Whether the first in the window is not known to stand before its predecessor.
    fn in_order(&self) -> bool {
        self.window
            .front()
            .is_none_or(|front| front.place.is_none())
    }

    /// Brings everything in the window to its place, however long that takes while it gets on.
    async fn mend(&mut self, refusal: Refusal) -> Result<(), StoreError> {
        self.mended = true;
        let (mut refused, mut attempt) = (Some(refusal), 0);
        let (mut since, mut stored) = (Instant::now(), self.stored);
        loop {
            if self.stored > stored {
                (since, stored, attempt) = (Instant::now(), self.stored, 0);
            }
            if let Some(refusal) = refused.take() {
                let error = self.stream.explain(refusal).await;
                let patience = match error {
                    StoreError::Timeout if self.stored == 0 => FIRST_PATIENCE,
                    _ => PATIENCE,
                };
                if !passes(&error) || since.elapsed() > patience {
                    return Err(error);
                }
                tracing::debug!(stream = ?self.stream, nuid = self.nuid, %error, "chunks are sent again");
                let (base, max) = (Duration::from_millis(50), Duration::from_secs(1));
                tokio::time::sleep(back_off(attempt, base, max)).await;
                attempt += 1;
            }
            if self.stream.js.client().connection_state() != State::Connected {
                refused = Some(Refusal::Other(unavailable("the connection is broken")));
                continue;
            }
            match self.send_again().await {
                Ok(()) => return Ok(()),
                Err(refusal) => refused = Some(refusal),
            }
        }
    }

    /// One by one, so that none overtakes another.
    async fn send_again(&mut self) -> Result<(), Refusal> {
        while let Some(front) = self.window.front_mut() {
            if let Some(place) = front.place {
                // Not behind its predecessor, or it would have left the window.
                delete(&self.stream, place).await?;
                front.place = None;
                front.attempt = front.attempt.wrapping_add(1);
            }
            let index = self.first;
            (self.heard, self.connects) = (Instant::now(), self.stream.connects());
            self.publish(0).await?;
            while self.first == index && self.in_order() {
                self.acknowledged().await?;
            }
        }
        Ok(())
    }

    /// Removes what was sent.
    async fn purge(mut self) {
        self.orphans = false;
        // A purge can overtake chunks that are on their way, and make the room for them that a full bucket had not: first all
        // of them are answered, whatever the answers are.
        let on_their_way = |chunks: &Self| {
            let open = chunks.window.iter().filter(|chunk| !chunk.answered);
            open.count()
        };
        loop {
            let before = on_their_way(&self);
            // An error that is no answer is the end of all answers.
            if before == 0 || self.acknowledged().await.is_err() && on_their_way(&self) == before {
                break;
            }
        }
        purge_again(&self.stream, &self.nuid, 0).await;
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        if !self.orphans || self.keep {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!(stream = ?self.stream, nuid = self.nuid, "an upload ended without its runtime: its chunks stay until `remove_orphans`");
            return;
        };
        let mut left = Self::new(&self.stream, std::mem::take(&mut self.nuid), false);
        left.acks = self.acks.take();
        left.window = std::mem::take(&mut self.window);
        left.window_bytes = self.window_bytes;
        (left.first, left.last) = (self.first, self.last);
        runtime.spawn(left.purge());
    }
}

/// Removes one message; that it is gone already is fine.
pub(super) async fn delete(stream: &Stream, sequence: u64) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    struct Deleted {}
    let subject = format!("STREAM.MSG.DELETE.{}", stream.name());
    let body = serde_json::json!({ "seq": sequence, "no_erase": true });
    match stream.request::<Deleted>(subject, &body).await {
        Ok(Deleted {}) => Ok(()),
        Err(Refusal::Other(StoreError::Server { code, .. }))
            if NO_MESSAGE_FOUND.contains(&code) =>
        {
            Ok(())
        }
        Err(refusal) => Err(refusal),
    }
}

/// Whether another attempt may end otherwise.
pub(super) fn passes(error: &StoreError) -> bool {
    match error {
        StoreError::Timeout | StoreError::Unavailable { .. } => true,
        StoreError::Server { code, .. } => PASSING.contains(code),
        _ => false,
    }
}
