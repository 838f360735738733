//! What happens to a connection besides messages, made visible: a permission that the server denies, a subscription that
//! lost messages, a connection that broke.
//!
//! NATS answers a denied publish with a line to the connection, and to nobody who waits: without this, such a call is a
//! time-out, and a service whose subscription is denied is a service that nobody hears of. async-nats hands these lines to a
//! callback that only `ConnectOptions` can take, before there is a client; so this is put there.

use crate::telemetry;
use async_nats::{ConnectOptions, Event, ServerError};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;
use tokio::sync::Notify;

/// Watches a connection: put it into the options that the connection is made with, and give it to the server and to the
/// clients on that connection.
///
/// Then a call that the server's permissions deny fails at once and says why; a server whose subscription is denied does not
/// start; everything is logged with `tracing`, counted, and handed to a [callback](Self::on_event).
///
/// ```
/// # use nats_service_testkit::TestServer;
/// use nats_service::{ConnectionEvents, Server, async_nats::ConnectOptions, nats_service};
///
/// #[nats_service]
/// trait Greeter {
///     async fn hello(&self, name: String) -> String;
/// }
/// # struct Polite; impl Greeter for Polite { async fn hello(&self, name: String) -> String { name } }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = TestServer::start().await?;
/// let events = ConnectionEvents::new();
/// let nats = events.install(ConnectOptions::new()).connect(server.url()).await?;
///
/// let running = Server::new(nats.clone()).with_events(&events).serve(GreeterServer::new(Polite)).start().await?;
/// let greeter = GreeterClient::new(nats).with_events(&events);
/// greeter.hello("Ada".to_string()).await?;
/// assert_eq!(events.counts().denials, 0);
/// # running.shutdown(std::time::Duration::from_secs(10)).await?; Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct ConnectionEvents(Arc<Shared>);

#[derive(Default)]
struct Shared {
    counts: Counters,
    /// The newest at the end.
    denials: Mutex<VecDeque<(Instant, Denial)>>,
    /// Told of each denial.
    denied: Notify,
    hook: OnceLock<Hook>,
}

type Hook = Box<dyn Fn(&ConnectionEvent) + Send + Sync>;

/// Denials that are remembered, for those who wait for what was denied.
const MOST_DENIALS: usize = 256;

#[derive(Default)]
struct Counters {
    connections: AtomicU64,
    disconnections: AtomicU64,
    slow_consumers: AtomicU64,
    denials: AtomicU64,
    /// Those among them that were no subscriptions.
    publishes: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    /// Subscriptions are few, and each one that is missing matters. Of publishes the 1st, 2nd, 4th, 8th .. is said; they are
    /// counted by themselves, or subscriptions before them would hide the first.
    fn is_to_be_said(&self, denial: &Denial) -> bool {
        matches!(denial, Denial::Subscribe { .. })
            || (self.publishes.fetch_add(1, Relaxed) + 1).is_power_of_two()
    }
}

/// How often what has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// Connections made, the first one included.
    pub connections: u64,
    /// Connections lost.
    pub disconnections: u64,
    /// Messages, or runs of them, that a subscription has lost because it was not read fast enough.
    pub slow_consumers: u64,
    /// Publishes and subscriptions that the server has denied.
    pub denials: u64,
    /// Other errors that the server or the client has reported.
    pub errors: u64,
}

/// One thing that has happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// It is there, for the first time or again.
    Connected,
    /// It broke; the client tries to make it again.
    Disconnected,
    /// It ended for good.
    Closed,
    /// Its server is about to stop, and wants its clients to go elsewhere.
    LameDuck,
    /// A subscription was not read fast enough, and has lost messages.
    SlowConsumer,
    /// The server's permissions do not allow something.
    Denied(Denial),
    /// Something else that the server or the client reports.
    Error(String),
}

/// What the server's permissions deny to the user of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// Publishing there.
    Publish {
        /// The subject.
        subject: String,
    },
    /// Subscribing to it.
    Subscribe {
        /// The subject.
        subject: String,
        /// The queue group, where there was one.
        queue_group: Option<String>,
    },
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.subject();
        match self {
            Denial::Publish { .. } if subject.starts_with("_INBOX.") => write!(
                f,
                "the server's permissions deny publishing to `{subject}`, a caller's inbox: allow this user to publish to its callers' inbox prefix, or give it `allow_responses`"
            ),
            Denial::Publish { .. } => write!(
                f,
                "the server's permissions deny publishing to `{subject}`: allow it under `permissions.publish` of this user"
            ),
            Denial::Subscribe { queue_group, .. } => {
                write!(
                    f,
                    "the server's permissions deny subscribing to `{subject}`"
                )?;
                if let Some(group) = queue_group {
                    write!(f, " in queue group `{group}`")?;
                }
                write!(f, ": allow it under `permissions.subscribe` of this user")
            }
        }
    }
}

impl Denial {
    /// What was denied.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Denial::Publish { subject } | Denial::Subscribe { subject, .. } => subject,
        }
    }

    /// The server's words for it.
    fn parse(text: &str) -> Option<Self> {
        let quoted = |text: &str| Some(text.split('"').nth(1)?.to_owned());
        // `find` and not a prefix: clients have put words of their own before the server's.
        let rest = |words: &str| text.find(words).map(|at| &text[at + words.len()..]);
        if let Some(rest) = rest("Permissions Violation for Subscription to ") {
            let group = rest
                .split_once("using queue ")
                .and_then(|(_, group)| quoted(group));
            return Some(Denial::Subscribe {
                subject: quoted(rest)?,
                queue_group: group,
            });
        }
        let rest = rest("Permissions Violation for Publish to ")?;
        Some(Denial::Publish {
            subject: quoted(rest)?,
        })
    }
}

impl ConnectionEvents {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `hook` with everything that happens. It is called on the connection's own task, so it must not block. The first
    /// one stays.
    #[must_use]
    pub fn on_event(self, hook: impl Fn(&ConnectionEvent) + Send + Sync + 'static) -> Self {
        let _ = self.0.hook.set(Box::new(hook));
        self
    }

    /// Puts it into the options of a connection, in place of any `event_callback` that was there.
    pub fn install(&self, options: ConnectOptions) -> ConnectOptions {
        let events = self.clone();
        options.event_callback(move |event| {
            events.take(event);
            std::future::ready(())
        })
    }

    /// Takes an event, for those who have an `event_callback` of their own: call it from there.
    pub fn take(&self, event: Event) {
        let counts = &self.0.counts;
        let event = match event {
            Event::Connected => ConnectionEvent::Connected,
            Event::Disconnected => ConnectionEvent::Disconnected,
            Event::Closed => ConnectionEvent::Closed,
            Event::LameDuckMode => ConnectionEvent::LameDuck,
            Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => {
                ConnectionEvent::SlowConsumer
            }
            Event::ServerError(ServerError::Other(text)) => match Denial::parse(&text) {
                Some(denial) => ConnectionEvent::Denied(denial),
                None => ConnectionEvent::Error(text),
            },
            // Asked for by this process itself.
            Event::Draining => return,
            other => ConnectionEvent::Error(other.to_string()),
        };
        match &event {
            ConnectionEvent::Connected => {
                counts.connections.fetch_add(1, Relaxed);
                self.lock().clear();
                tracing::info!("connected to NATS");
            }
            ConnectionEvent::Disconnected => {
                counts.disconnections.fetch_add(1, Relaxed);
                tracing::warn!("the connection to NATS is lost, and is being made again");
            }
            ConnectionEvent::Closed => tracing::warn!("the connection to NATS is closed"),
            ConnectionEvent::LameDuck => {
                tracing::info!("the NATS server is about to stop, and hands its clients over");
            }
            ConnectionEvent::SlowConsumer => {
                let count = counts.slow_consumers.fetch_add(1, Relaxed) + 1;
                // A flood must not flood the log too: the 1st, 2nd, 4th, 8th .. is written.
                if count.is_power_of_two() {
                    tracing::error!(
                        count,
                        "a subscription is not read fast enough, and has lost messages"
                    );
                }
            }
            ConnectionEvent::Denied(denial) => {
                let count = counts.denials.fetch_add(1, Relaxed) + 1;
                if counts.is_to_be_said(denial) {
                    tracing::error!(subject = denial.subject(), count, "{denial}");
                }
                self.remember(denial.clone());
            }
            ConnectionEvent::Error(error) => {
                counts.errors.fetch_add(1, Relaxed);
                tracing::warn!(error, "the connection to NATS reports an error");
            }
        }
        telemetry::connection(&event);
        if let Some(hook) = self.0.hook.get() {
            hook(&event);
        }
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> ConnectionCounts {
        let counts = &self.0.counts;
        ConnectionCounts {
            connections: counts.connections.load(Relaxed),
            disconnections: counts.disconnections.load(Relaxed),
            slow_consumers: counts.slow_consumers.load(Relaxed),
            denials: counts.denials.load(Relaxed),
            errors: counts.errors.load(Relaxed),
        }
    }

    /// What was denied since the connection was made, the oldest first: at most the last 256.
    #[must_use]
    pub fn denials(&self) -> Vec<Denial> {
        let denials = self.lock();
        denials.iter().map(|(_, denial)| denial.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Denial)>> {
        // No code that can panic runs under the lock.
        let denials = self.0.denials.lock();
        denials.unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn remember(&self, denial: Denial) {
        let mut denials = self.lock();
        denials.retain(|(_, known)| *known != denial);
        if denials.len() == MOST_DENIALS {
            denials.pop_front();
        }
        denials.push_back((Instant::now(), denial));
        drop(denials);
        self.0.denied.notify_waiters();
    }

    /// Waits for a denial that `is` the one, by its time too; it may have come already.
    pub(crate) async fn wait(&self, is: impl Fn(Instant, &Denial) -> bool) -> Denial {
        loop {
            let more = self.0.denied.notified();
            tokio::pin!(more);
            // From here on none is missed.
            more.as_mut().enable();
            if let Some(denial) = self.find(&is) {
                return denial;
            }
            more.await;
        }
    }

    fn find(&self, is: impl Fn(Instant, &Denial) -> bool) -> Option<Denial> {
        let denials = self.lock();
        let found = denials.iter().rev().find(|(at, denial)| is(*at, denial));
        found.map(|(_, denial)| denial.clone())
    }
}

impl fmt::Debug for ConnectionEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionEvents")
            .field(&self.counts())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_words_for_a_denial_are_understood_and_others_are_an_error() {
        let publish = r#"Permissions Violation for Publish to "a.b""#;
        let subscribe = r#"Permissions Violation for Subscription to "a.>""#;
        let queue = r#"Permissions Violation for Subscription to "a.b" using queue "q""#;
        let subject = "a.b".to_owned();
        assert_eq!(
            Denial::parse(publish),
            Some(Denial::Publish {
                subject: subject.clone()
            })
        );
        assert_eq!(
            Denial::parse(subscribe),
            Some(Denial::Subscribe {
                subject: "a.>".into(),
                queue_group: None
            })
        );
        assert_eq!(
            Denial::parse(queue),
            Some(Denial::Subscribe {
                subject,
                queue_group: Some("q".into())
            })
        );
        for other in [
            "",
            "Stale Connection",
            "Permissions Violation for Publish to ",
        ] {
            assert_eq!(Denial::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_first_denied_publish_is_said_whatever_was_denied_before() {
        let counters = Counters::default();
        let text = |verb| format!("Permissions Violation for {verb} to \"s\"");
        let denial = |verb| Denial::parse(&text(verb)).unwrap();
        let (publish, subscription) = (denial("Publish"), denial("Subscription"));
        assert!((0..11).all(|_| counters.is_to_be_said(&subscription)));
        let said: Vec<_> = (1..10)
            .filter(|_| counters.is_to_be_said(&publish))
            .collect();
        assert_eq!(said, [1, 2, 4, 8]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_found_by_its_time() {
        let events = ConnectionEvents::new();
        let before = Instant::now();
        for i in 0..2 * MOST_DENIALS {
            let text = format!("Permissions Violation for Publish to \"s.{i}\"");
            events.take(Event::ServerError(ServerError::Other(text)));
        }
        assert_eq!(events.denials().len(), MOST_DENIALS);
        assert_eq!(events.counts().denials, 2 * MOST_DENIALS as u64);
        let last =
            |since: Instant| events.find(|at, denial| at >= since && denial.subject() == "s.511");
        assert!(last(before).is_some());
        assert!(last(Instant::now()).is_none());
        // What a new connection may do, its server says anew.
        events.take(Event::Connected);
        assert_eq!((events.denials(), last(before)), (Vec::new(), None));
    }
}
