//! Asking who is there: `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS` of every service of the connection's account, ours or not.
//!
//! Left out: judging what they say. A reply that is none (another type, no JSON) is passed over.

use crate::wire::moment::bounded;
use async_nats::{Client, StatusCode};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Finds services by ADR-32, whatever language they are written in.
///
/// How many there are, nobody knows; so it waits for the first reply until the [`timeout`](Self::timeout), and for each further one
/// as long as the [`stall`](Self::stall) time. Where nobody listens at all, the NATS server says so at once.
///
/// ```
/// use nats_service::{Discover, Server, nats_service};
/// # #[nats_service] trait Greeter { async fn hello(&self, name: String) -> String; }
/// # struct Polite;
/// # impl Greeter for Polite { async fn hello(&self, name: String) -> String { name } }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let nats = nats_service::async_nats::connect(server.url()).await?;
/// # let running = Server::new(nats.clone()).serve(GreeterServer::new(Polite)).start().await?;
/// for instance in Discover::new(nats.clone()).service("greeter").info().await? {
///     println!("{} {} ({})", instance.name, instance.version, instance.id);
///     assert_eq!(instance.endpoints[0].subject, "greeter.hello");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is asked until `ping`, `info` or `stats`"]
pub struct Discover {
    client: Client,
    service: Option<String>,
    id: Option<String>,
    stall: Duration,
    timeout: Duration,
    most: usize,
}

/// An instance that is there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct ServicePing {
    /// The service's name.
    pub name: String,
    /// The instance's.
    pub id: String,
    /// A semantic version.
    pub version: String,
    /// Free pairs.
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
}

/// An instance, and what can be called on it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct ServiceInfo {
    /// The service's name.
    pub name: String,
    /// The instance's.
    pub id: String,
    /// A semantic version.
    pub version: String,
    /// Free pairs.
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
    /// What it is for.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// What can be called.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<EndpointInfo>,
}

/// One endpoint of an instance.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct EndpointInfo {
    /// Its name; several may have the same.
    pub name: String,
    /// Where it listens.
    pub subject: String,
    /// With whom it shares its requests; empty when it gets all.
    #[serde(default, deserialize_with = "or_default")]
    pub queue_group: String,
    /// Free pairs.
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
}

/// An instance, and what it has done.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct ServiceStats {
    /// The service's name.
    pub name: String,
    /// The instance's.
    pub id: String,
    /// A semantic version.
    pub version: String,
    /// Free pairs.
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
    /// Since when it runs, by RFC 3339.
    #[serde(default, deserialize_with = "or_default")]
    pub started: String,
    /// What each endpoint has done.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<EndpointStats>,
}

/// What one endpoint of an instance has done since it started.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub subject: String,
    /// With whom it shares its requests; empty when it gets all.
    #[serde(default, deserialize_with = "or_default")]
    pub queue_group: String,
    /// Requests that have ended, well or not.
    #[serde(default, deserialize_with = "or_default")]
    pub num_requests: u64,
    /// Those that ended with an error.
    #[serde(default, deserialize_with = "or_default")]
    pub num_errors: u64,
    /// `<number>:<text>` of the last of them, or empty.
    #[serde(default, deserialize_with = "or_default")]
    pub last_error: String,
    /// How long all of them took. Nanoseconds on the wire.
    #[serde(default, deserialize_with = "nanoseconds")]
    pub processing_time: Duration,
    /// How long one of them took. Nanoseconds on the wire.
    #[serde(default, deserialize_with = "nanoseconds")]
    pub average_processing_time: Duration,
    /// What the service adds: of ours `num_shed`, `num_forged` and `writers`.
    #[serde(default)]
    pub data: serde_json::Value,
}

/// Nobody could be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// An instance is found by its service's name and its id.
    #[error(
        "an instance is asked for by its service and its id: call `service(..)` before `id(..)`"
    )]
    IdWithoutService,
    /// Neither a name nor an id looks like this.
    #[error(
        "`{0}` is no name of a service or an instance: those are ASCII letters, digits, `_` and `-`"
    )]
    Name(String),
    /// The connection does not work, or was closed.
    #[error("the connection failed: {0}")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Discover {
    /// Asks over this connection: everybody, unless something else is said.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            service: None,
            id: None,
            stall: Duration::from_millis(300),
            timeout: Duration::from_secs(2),
            most: 10_000,
        }
    }

    /// Asks only instances of this service.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// Asks only this instance of the service.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// How long to wait for another reply after one has come (300 ms).
    pub fn stall(mut self, stall: Duration) -> Self {
        self.stall = stall;
        self
    }

    /// How long to wait altogether (2 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many instances are enough (10,000): whoever knows the number waits no longer than they take.
    pub fn at_most(mut self, instances: usize) -> Self {
        self.most = instances;
        self
    }

    /// Who is there.
    ///
    /// # Errors
    /// When the connection does not work. That nobody is there is no error.
    pub async fn ping(&self) -> Result<Vec<ServicePing>, DiscoverError> {
        self.gather("PING", "io.nats.micro.v1.ping_response").await
    }

    /// What can be called.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub async fn info(&self) -> Result<Vec<ServiceInfo>, DiscoverError> {
        self.gather("INFO", "io.nats.micro.v1.info_response").await
    }

    /// What was done.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub async fn stats(&self) -> Result<Vec<ServiceStats>, DiscoverError> {
        self.gather("STATS", "io.nats.micro.v1.stats_response")
            .await
    }

    fn subject(&self, verb: &str) -> Result<String, DiscoverError> {
        let mut subject = format!("$SRV.{verb}");
        if self.id.is_some() && self.service.is_none() {
            return Err(DiscoverError::IdWithoutService);
        }
        for token in [&self.service, &self.id].into_iter().flatten() {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if token.is_empty() || !token.chars().all(fits) {
                return Err(DiscoverError::Name(token.clone()));
            }
            subject.push('.');
            subject.push_str(token);
        }
        Ok(subject)
    }

    async fn gather<T: DeserializeOwned>(
        &self,
        verb: &str,
        kind: &str,
    ) -> Result<Vec<T>, DiscoverError> {
        let subject = self.subject(verb)?;
        let inbox = self.client.new_inbox();
        let replies = self.client.subscribe(inbox.clone()).await;
        let mut replies = replies.map_err(connection)?;
        let sent = self.client.publish_with_reply(subject, inbox, "".into());
        sent.await.map_err(connection)?;
        let end = Instant::now() + bounded(self.timeout);
        let (mut found, mut wait) = (Vec::new(), end);
        while found.len() < self.most {
            let Ok(Some(reply)) = timeout_at(wait, replies.next()).await else {
                break;
            };
            if reply.status == Some(StatusCode::NO_RESPONDERS) {
                break;
            }
            match read(&reply.payload, kind) {
                Some(one) => found.push(one),
                None => tracing::debug!(verb, "a reply to a discovery request was not understood"),
            }
            wait = end.min(Instant::now() + bounded(self.stall));
        }
        Ok(found)
    }
}

fn connection(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DiscoverError {
    DiscoverError::Connection(source.into())
}

fn read<T: DeserializeOwned>(payload: &[u8], kind: &str) -> Option<T> {
    let value: serde_json::Value = serde_json::from_slice(payload).ok()?;
    if value["type"] != kind {
        return None;
    }
    T::deserialize(value).ok()
}

/// What is null is as good as missing: some clients write one, some the other.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn nanoseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    // Clients whose language has no integers send fractions.
    let nanoseconds: f64 = or_default(from)?;
    let seconds = Duration::try_from_secs_f64(nanoseconds / 1e9);
    Ok(seconds.unwrap_or_default())
}
