//! A contract's two sides in one process: requests and replies as messages, and no server between them.
//!
//! The client's side sends and waits, the service's side takes and answers; both see the messages that a server would pass on.
//! It is requests, replies and streams only: no discovery, no JetStream, no wildcards.

use super::replies::Replies;
use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::mpsc;

/// What a server takes by default.
const MAX_PAYLOAD: usize = 1 << 20;
/// As of a server's inboxes, so that the service's rule for reply subjects is kept.
const INBOX: &str = "_INBOX.local.";

/// Where each subject's requests go.
pub(crate) type Endpoints = HashMap<&'static str, mpsc::Sender<Message>>;
type Start = Box<dyn FnOnce() -> Endpoints + Send>;

/// Both sides, before and after the service has started.
pub(crate) struct Loopback {
    outlet: LocalOutlet,
    /// Starts the service, in whatever runtime the first call is made.
    start: Mutex<Option<Start>>,
    endpoints: OnceLock<Endpoints>,
}

/// Where messages of either side go that are no requests.
#[derive(Debug, Clone)]
pub(crate) struct LocalOutlet {
    pub(crate) replies: Arc<Replies>,
    pub(crate) max_payload: usize,
    listeners: Arc<Listeners>,
}

type Listener = Arc<dyn Fn(Message) + Send + Sync>;

/// Who listens under which inbox.
#[derive(Default)]
struct Listeners {
    inboxes: AtomicU64,
    listening: Mutex<HashMap<String, Listener>>,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Listener>> {
        // No code that can panic runs under the lock.
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that listens under an inbox, until this is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    listeners: Arc<Listeners>,
    inbox: String,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let listener = self.listeners.lock().remove(&self.inbox);
        // Outside of the lock: what it holds may listen, too.
        drop(listener);
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loopback")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Loopback {
    /// One whose service begins with the first request.
    pub(crate) fn new(start: impl FnOnce(LocalOutlet) -> Endpoints + Send + 'static) -> Self {
        let outlet = LocalOutlet {
            replies: Arc::default(),
            max_payload: MAX_PAYLOAD,
            listeners: Arc::default(),
        };
        let of_service = outlet.clone();
        Self {
            outlet,
            start: Mutex::new(Some(Box::new(move || start(of_service)))),
            endpoints: OnceLock::new(),
        }
    }

    pub(crate) fn outlet(&self) -> &LocalOutlet {
        &self.outlet
    }

    pub(crate) fn replies(&self) -> &Arc<Replies> {
        &self.outlet.replies
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.outlet.max_payload
    }

    /// The reply subject of this number.
    pub(crate) fn inbox(number: u64) -> Subject {
        format!("{INBOX}{number}").into()
    }

    fn endpoints(&self) -> &Endpoints {
        self.endpoints.get_or_init(|| {
            let start = self
                .start
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .take();
            start.map(|start| start()).unwrap_or_default()
        })
    }

    /// Hands a request to its endpoint, when that has room.
    pub(crate) async fn send(
        &self,
        subject: Subject,
        reply: Subject,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<(), &'static str> {
        let Some(endpoint) = self.endpoints().get(&*subject) else {
            return Err("the local service has no such endpoint");
        };
        let request = message(subject, Some(reply), headers, body);
        let sent = endpoint.send(request).await;
        sent.map_err(|_| "the runtime in which the local service began is gone")
    }
}

impl LocalOutlet {
    /// Hands a message to whoever waits for it, if anybody does.
    pub(crate) fn publish(
        &self,
        to: Subject,
        reply: Option<Subject>,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) {
        let message = message(to.clone(), reply, headers, body);
        let Some(place) = to.strip_prefix(INBOX) else {
            return;
        };
        let Some((inbox, _)) = place.split_once('.') else {
            return self.replies.deliver(Some(place), message);
        };
        let listener = self.listeners.lock().get(inbox).cloned();
        if let Some(listener) = listener {
            listener(message);
        }
    }

    /// See [`Outlet::new_inbox`](super::outlet::Outlet::new_inbox).
    pub(crate) fn new_inbox(&self) -> String {
        let number = self.listeners.inboxes.fetch_add(1, Ordering::Relaxed);
        format!("{INBOX}{number}.")
    }

    /// Has messages handed over that go under this inbox. It happens in the middle of whatever publishes them.
    pub(crate) fn listen(
        &self,
        inbox: &str,
        listener: impl Fn(Message) + Send + Sync + 'static,
    ) -> Listening {
        let inbox = inbox.strip_prefix(INBOX).unwrap_or(inbox);
        let inbox = inbox.trim_end_matches('.').to_owned();
        let listener: Listener = Arc::new(listener);
        self.listeners.lock().insert(inbox.clone(), listener);
        let listeners = Arc::clone(&self.listeners);
        Listening { listeners, inbox }
    }
}

fn message(
    subject: Subject,
    reply: Option<Subject>,
    headers: Option<HeaderMap>,
    payload: Bytes,
) -> Message {
    Message {
        length: subject.len() + reply.as_ref().map_or(0, |reply| reply.len()) + payload.len(),
        subject,
        reply,
        payload,
        headers,
        status: None,
        description: None,
    }
}
