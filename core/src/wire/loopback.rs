//! A contract's two sides in one process: requests and replies as messages, and no server between them.
//!
//! The client's side sends and waits, the service's side takes and answers; both see the messages that a server would pass on.
//! It is request and reply only: no discovery, no JetStream, no wildcards.

use super::replies::Replies;
use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
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

/// Where a local service's replies go.
#[derive(Debug, Clone)]
pub(crate) struct LocalOutlet {
    pub(crate) replies: Arc<Replies>,
    pub(crate) max_payload: usize,
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
        };
        let of_service = outlet.clone();
        Self {
            outlet,
            start: Mutex::new(Some(Box::new(move || start(of_service)))),
            endpoints: OnceLock::new(),
        }
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
    pub(crate) fn publish(&self, reply: Subject, headers: Option<HeaderMap>, body: Bytes) {
        let message = message(reply.clone(), None, headers, body);
        self.replies.deliver(reply.strip_prefix(INBOX), message);
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
