//! `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`, as ADR-32 has them: how `nats micro` and every official client find us.

use super::cache::CacheReading;
use super::placement::Place;
use super::stats::Stats;
use crate::store::WriterStats;
use crate::store::persist::Writers;
use crate::wire::codec::Codec;
use crate::wire::spec::{MethodSpec, ServiceSpec};
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// Which side of an endpoint streams: `answers`, `requests` or `both`.
const STREAM_METADATA: &str = "nats-service-stream";

/// One running instance of a service.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) spec: &'static ServiceSpec,
    pub(crate) metadata: Pairs,
    pub(crate) id: String,
    pub(crate) started: OffsetDateTime,
    pub(crate) endpoints: Vec<Listed>,
    /// `None` without JetStream.
    pub(crate) writers: Option<Writers>,
}

/// One endpoint, as discovery has it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) spec: &'static MethodSpec,
    pub(crate) place: Place,
    pub(crate) metadata: Pairs,
    pub(crate) stats: Arc<Stats>,
}

type Pairs = BTreeMap<String, String>;

/// What a contract's metadata is, and what a document adds.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) service: Pairs,
    /// By the endpoint's name.
    pub(crate) endpoints: BTreeMap<String, Pairs>,
}

/// What a service's bodies may be written in, its own first.
const CONTENT_TYPES: &str = "content-types";

impl Metadata {
    pub(crate) fn of(spec: &ServiceSpec) -> Self {
        let pairs = |pairs: &[(&str, &str)]| -> Pairs {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let methods = spec.methods.iter();
        let mut service = pairs(spec.metadata);
        // A service that says nothing speaks JSON.
        let own = spec.methods.first().map(|method| method.codec);
        if let Some(own) = own.filter(|own| *own != Codec::Json) {
            let spoken = own.spoken().join(", ");
            service.entry(CONTENT_TYPES.to_owned()).or_insert(spoken);
        }
        Self {
            service,
            endpoints: methods
                .map(|method| {
                    let mut metadata = pairs(method.metadata);
                    if let Some(name) = method.stream.name() {
                        metadata
                            .entry(STREAM_METADATA.to_owned())
                            .or_insert_with(|| name.to_owned());
                    }
                    (method.name.to_owned(), metadata)
                })
                .collect(),
        }
    }

    /// Adds the short forms. What the trait says itself stays.
    #[cfg(feature = "schema")]
    pub(crate) fn with_contracts(
        mut self,
        spec: &ServiceSpec,
        contracts: &[crate::contract::ShortForms],
    ) -> Self {
        for contract in contracts
            .iter()
            .filter(|contract| contract.name == spec.name)
        {
            for (name, value) in &contract.service {
                self.service
                    .entry((*name).to_owned())
                    .or_insert_with(|| value.clone());
            }
            for (endpoint, pairs) in &contract.endpoints {
                let metadata = self.endpoints.entry(endpoint.clone()).or_default();
                for (name, value) in pairs {
                    metadata
                        .entry((*name).to_owned())
                        .or_insert_with(|| value.clone());
                }
            }
        }
        self
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Ping,
    Info,
    Stats,
}

const VERBS: [(Verb, &str); 3] = [
    (Verb::Ping, "PING"),
    (Verb::Info, "INFO"),
    (Verb::Stats, "STATS"),
];

#[derive(Serialize)]
struct Response<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    id: &'a str,
    version: &'a str,
    metadata: &'a Pairs,
    #[serde(flatten)]
    rest: T,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Info<'a> {
    description: &'a str,
    endpoints: Vec<EndpointInfo<'a>>,
}

#[derive(Serialize)]
struct EndpointInfo<'a> {
    name: &'a str,
    subject: &'a str,
    queue_group: &'a str,
    metadata: &'a Pairs,
}

#[derive(Serialize)]
struct StatsBody<'a> {
    #[serde(with = "time::serde::rfc3339")]
    started: OffsetDateTime,
    endpoints: Vec<EndpointStats<'a>>,
}

#[derive(Serialize)]
struct EndpointStats<'a> {
    name: &'a str,
    subject: &'a str,
    queue_group: &'a str,
    num_requests: u64,
    num_errors: u64,
    last_error: String,
    /// Nanoseconds, both.
    processing_time: u64,
    average_processing_time: u64,
    data: EndpointData,
}

/// What ADR-32 leaves to the service.
#[derive(Serialize)]
struct EndpointData {
    num_shed: u64,
    num_forged: u64,
    /// The writers of the buckets that this endpoint's answers go to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    writers: Vec<WriterStats>,
    /// Of a method with `#[kv_cache]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<CacheReading>,
    /// Of an endpoint that streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<StreamStats>,
}

#[derive(Serialize)]
struct StreamStats {
    num_open: u64,
    num_items_sent: u64,
    num_items_received: u64,
}

/// The time as every official client can read it: nats-py wants one to six digits after the second, no more and no fewer.
pub(crate) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.microsecond().max(1) * 1000)
        .unwrap_or(now)
}

impl Instance {
    fn respond(&self, verb: Verb) -> Bytes {
        let body = match verb {
            Verb::Ping => {
                serde_json::to_vec(&self.response("io.nats.micro.v1.ping_response", Nothing {}))
            }
            Verb::Info => {
                serde_json::to_vec(&self.response("io.nats.micro.v1.info_response", self.info()))
            }
            Verb::Stats => {
                serde_json::to_vec(&self.response("io.nats.micro.v1.stats_response", self.stats()))
            }
        };
        // Strings and numbers always encode; an empty reply would still be better than none.
        body.unwrap_or_default().into()
    }

    fn response<T>(&self, kind: &'static str, rest: T) -> Response<'_, T> {
        Response {
            kind,
            name: self.spec.name,
            id: &self.id,
            version: self.spec.version,
            metadata: &self.metadata,
            rest,
        }
    }

    fn info(&self) -> Info<'_> {
        let endpoints = self.endpoints.iter().map(|listed| EndpointInfo {
            name: listed.spec.name,
            subject: &listed.place.subject,
            queue_group: listed.place.queue_group.as_deref().unwrap_or_default(),
            metadata: &listed.metadata,
        });
        Info {
            description: self.spec.description,
            endpoints: endpoints.collect(),
        }
    }

    fn stats(&self) -> StatsBody<'_> {
        let endpoints = self.endpoints.iter().map(|listed| {
            let spec = listed.spec;
            let reading = listed.stats.read();
            let processing_time = u64::try_from(reading.processing.as_nanos()).unwrap_or(u64::MAX);
            EndpointStats {
                name: spec.name,
                subject: &listed.place.subject,
                queue_group: listed.place.queue_group.as_deref().unwrap_or_default(),
                num_requests: reading.requests,
                num_errors: reading.errors,
                last_error: reading.last_error,
                processing_time,
                average_processing_time: processing_time
                    .checked_div(reading.requests)
                    .unwrap_or_default(),
                data: EndpointData {
                    num_shed: reading.shed,
                    num_forged: reading.forged,
                    writers: self.writers_of(spec),
                    cache: spec
                        .stores
                        .iter()
                        .any(|store| store.cache.is_some())
                        .then(|| listed.stats.cache.read()),
                    streams: spec.stream.name().map(|_| StreamStats {
                        num_open: listed.stats.streams.open.load(Relaxed),
                        num_items_sent: listed.stats.streams.sent.load(Relaxed),
                        num_items_received: listed.stats.streams.received.load(Relaxed),
                    }),
                },
            }
        });
        StatsBody {
            started: self.started,
            endpoints: endpoints.collect(),
        }
    }
}

impl Instance {
    fn writers_of(&self, method: &MethodSpec) -> Vec<WriterStats> {
        let all = self
            .writers
            .as_ref()
            .map(Writers::stats)
            .unwrap_or_default();
        let of_this = |writer: &WriterStats| {
            method
                .stores
                .iter()
                .any(|store| store.bucket.name == writer.bucket)
        };
        all.into_iter().filter(of_this).collect()
    }
}

/// Subscribes to the nine subjects of an instance.
pub(crate) async fn subscribe(
    client: &Client,
    instance: &Instance,
) -> Result<Discovery, async_nats::SubscribeError> {
    let mut subscriptions = SelectAll::new();
    for (verb, word) in VERBS {
        let plain = format!("$SRV.{word}");
        let named = format!("{plain}.{}", instance.spec.name);
        let single = format!("{named}.{}", instance.id);
        for subject in [plain, named, single] {
            let subscription = client.subscribe(subject).await?;
            subscriptions.push(Asked { verb, subscription });
        }
    }
    Ok(Discovery { subscriptions })
}

/// The subscriptions of one instance.
pub(crate) struct Discovery {
    subscriptions: SelectAll<Asked>,
}

struct Asked {
    verb: Verb,
    subscription: Subscriber,
}

impl futures_util::Stream for Asked {
    type Item = (Verb, Message);

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let verb = self.verb;
        self.subscription
            .poll_next_unpin(cx)
            .map(|message| message.map(|message| (verb, message)))
    }
}

impl Discovery {
    /// Answers until told to stop.
    pub(crate) async fn run(
        mut self,
        client: Client,
        instance: Arc<Instance>,
        rule: Arc<super::reply::ReplyRule>,
        stop: CancellationToken,
    ) {
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                asked = self.subscriptions.next() => asked,
            };
            let Some((verb, message)) = asked else { return };
            // Without a reply subject there is nobody to tell; with a forged one, nobody who should be told.
            let Some(reply) = message.reply.filter(|reply| rule.check(reply).is_ok()) else {
                continue;
            };
            if let Err(error) = client.publish(reply, instance.respond(verb)).await {
                tracing::warn!(service = instance.spec.name, %error, "a discovery reply could not be sent");
            }
        }
    }
}
