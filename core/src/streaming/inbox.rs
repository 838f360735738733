//! Where the messages of streams arrive: one subscription (or none, within a process), a token that nobody can guess for each stream, and a mailbox of
//! bounded size behind it.
//!
//! A message for a stream that is not there is answered with `cancel`, so that a peer whose other end was restarted or has
//! given up need not wait until it believes it.

use crate::wire::frame::{self, Amount, Head, Kind};
use crate::wire::loopback::Listening;
use crate::wire::outlet::Outlet;
use crate::wire::subject::behind_gateway;
use async_nats::{Client, HeaderMap, Message, Subject, Subscriber};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::sync::{OnceCell, mpsc};
use tokio::task::AbortHandle;

/// Heartbeats and the like, which no credit bounds.
const SPARE_MESSAGES: usize = 64;

/// A subject that no service has made.
const MAX_SUBJECT: usize = 512;

/// Which reply subjects are answered.
pub(crate) type Allowed = Arc<dyn Fn(&str) -> bool + Send + Sync>;

pub(crate) struct Inbox {
    outlet: Outlet,
    /// With its final dot.
    prefix: String,
    allowed: Allowed,
    table: Arc<Table>,
    /// Started by the first stream.
    listening: OnceCell<Listens>,
}

/// What brings messages, for as long as it is there.
enum Listens {
    /// The task that reads the subscription.
    Task(AbortHandle),
    Local {
        _until_dropped: Listening,
    },
}

#[derive(Default)]
struct Table(Mutex<HashMap<Box<str>, Slot>>);

struct Slot {
    sender: mpsc::Sender<Message>,
    queued: Arc<AtomicUsize>,
    most: usize,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Slot>> {
        // No code that can panic runs under the lock.
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The messages of one stream. Dropping it ends the stream's entry.
pub(crate) struct Mailbox {
    receiver: mpsc::Receiver<Message>,
    queued: Arc<AtomicUsize>,
    table: Arc<Table>,
    token: Box<str>,
    /// A number that is as hard to guess as the token.
    pub(crate) mark: u64,
    /// Where its messages are to go.
    pub(crate) subject: String,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl Inbox {
    pub(crate) fn new(outlet: Outlet, allowed: Allowed) -> Self {
        let prefix = outlet.new_inbox();
        Self {
            outlet,
            prefix,
            allowed,
            table: Arc::default(),
            listening: OnceCell::new(),
        }
    }

    /// A new stream's mailbox, for a window of this size.
    pub(crate) async fn open(
        &self,
        window: Amount,
    ) -> Result<Mailbox, Box<dyn std::error::Error + Send + Sync>> {
        self.listening.get_or_try_init(|| self.start()).await?;
        let token: Box<str> = URL_SAFE_NO_PAD.encode(random::<16>()?).into();
        // Never 0, which says that there is none.
        let mark = u64::from(u32::from_be_bytes(random()?)) + 1;
        // An honest peer stays far below, and may be sending a part of it again.
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX / 8);
        let (sender, receiver) = mpsc::channel(2 * count(window.items) + SPARE_MESSAGES);
        let queued = Arc::<AtomicUsize>::default();
        let slot = Slot {
            sender,
            queued: Arc::clone(&queued),
            most: 2 * (count(window.bytes) + self.outlet.max_payload()),
        };
        self.table.lock().insert(token.clone(), slot);
        Ok(Mailbox {
            receiver,
            queued,
            mark,
            table: Arc::clone(&self.table),
            subject: format!("{}{token}", self.prefix),
            token,
        })
    }

    async fn start(&self) -> Result<Listens, async_nats::SubscribeError> {
        let postman = Postman {
            prefix: self.prefix.len(),
            table: Arc::clone(&self.table),
            allowed: Arc::clone(&self.allowed),
        };
        Ok(match &self.outlet {
            Outlet::Nats(client) => {
                let subscription = client.subscribe(format!("{}*", self.prefix)).await?;
                let task = tokio::spawn(postman.run(client.clone(), subscription));
                Listens::Task(task.abort_handle())
            }
            Outlet::Local(local) => {
                let outlet = local.clone();
                let _until_dropped = local.listen(&self.prefix, move |message| {
                    if let Some((reply, headers)) = postman.deliver(message) {
                        outlet.publish(reply, None, Some(headers), Bytes::new());
                    }
                });
                Listens::Local { _until_dropped }
            }
        })
    }
}

fn random<const N: usize>() -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "the system gives no random numbers")?;
    Ok(bytes)
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some(Listens::Task(reader)) = self.listening.get() {
            reader.abort();
        }
        // Streams that still run are told, by their senders being dropped.
        self.table.lock().clear();
    }
}

struct Postman {
    prefix: usize,
    table: Arc<Table>,
    allowed: Allowed,
}

impl Postman {
    async fn run(self, client: Client, mut subscription: Subscriber) {
        while let Some(message) = subscription.next().await {
            if let Some((reply, headers)) = self.deliver(message)
                && let Err(error) = client
                    .publish_with_headers(reply, headers, Bytes::new())
                    .await
            {
                tracing::debug!(%error, "a stray message of a stream was not answered");
            }
        }
        // The connection is closed for good.
        self.table.lock().clear();
    }

    /// What is to be answered to it where its stream is not there.
    fn deliver(&self, message: Message) -> Option<(Subject, HeaderMap)> {
        let table = self.table.lock();
        let Some(slot) = message
            .subject
            .get(self.prefix..)
            .and_then(|token| table.get(token))
        else {
            drop(table);
            return self.refusal(message);
        };
        let length = message.payload.len();
        // What does not fit is dropped, and a peer that is one will be asked for it again: only a stranger sends so much.
        if slot.queued.load(Ordering::Acquire) + length <= slot.most {
            slot.queued.fetch_add(length, Ordering::AcqRel);
            if slot.sender.try_send(message).is_err() {
                slot.queued.fetch_sub(length, Ordering::AcqRel);
            }
        }
        None
    }

    /// `cancel`, to whoever waits for a stream that is not there. It has no reply subject, so it is never answered itself.
    fn refusal(&self, stray: Message) -> Option<(Subject, HeaderMap)> {
        let head = head(stray.headers.as_ref()?)?;
        let allowed = |reply: &Subject| head.kind != Kind::Cancel && (self.allowed)(reply);
        let reply = stray.reply.filter(allowed)?;
        Some((reply, headers(&Head::new(Kind::Cancel))))
    }
}

/// Whether this may be where a service listens for its streams. What is sent there is sent with our rights, so it is neither
/// a subject of the server nor one that a service has for anything else: inboxes begin with `_`.
pub(crate) fn is_inbox(subject: &str) -> bool {
    let inner = behind_gateway(subject).unwrap_or_default();
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '*' && c != '>';
    inner.starts_with('_') && subject.len() <= MAX_SUBJECT && subject.chars().all(plain)
}

/// What the headers of a message say of its stream.
pub(crate) fn head(headers: &HeaderMap) -> Option<Head> {
    Head::parse(headers.get(frame::STREAM)?.as_str())
}

/// The headers of a message that says this.
pub(crate) fn headers(head: &Head) -> HeaderMap {
    let mut headers = HeaderMap::new();
    write(head, &mut headers);
    headers
}

/// Says this, among other headers.
pub(crate) fn write(head: &Head, headers: &mut HeaderMap) {
    // Words and numbers: a value that parses.
    if let Ok(value) = head.to_string().parse::<async_nats::HeaderValue>() {
        headers.insert(frame::STREAM, value);
    }
}

impl Mailbox {
    /// The next message; `None` when the connection was closed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let polled = self.receiver.poll_recv(cx);
        if let Poll::Ready(Some(message)) = &polled {
            self.queued
                .fetch_sub(message.payload.len(), Ordering::AcqRel);
        }
        polled
    }

    pub(crate) async fn next(&mut self) -> Option<Message> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.table.lock().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::is_inbox;

    #[test]
    fn a_service_cannot_make_its_caller_speak_to_anything_but_an_inbox() {
        for subject in [
            "_INBOX.abc.1",
            "_team.abc",
            "_R_.a.b",
            "_GR_.c.s._INBOX.a.b",
        ] {
            assert!(is_inbox(subject), "{subject}");
        }
        for subject in [
            "",
            "$KV.bucket.key",
            "$JS.API.STREAM.DELETE.KV_b",
            "orders.new",
            "_INBOX.>",
            "_INBOX.*.a",
            "_INBOX.a b",
            "_GR_.c.s.$KV.b.k",
            "_GR_.c",
        ] {
            assert!(!is_inbox(subject), "{subject}");
        }
    }
}
