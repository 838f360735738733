//! Metrics through the facade `metrics`: whoever installs a recorder decides where they go.
//!
//! A recorder has to be there before `Server::start`, which asks it for its instruments once, so that a request costs an atomic
//! addition or three and no look-up. What happens to a connection is counted from when there is a recorder.

use crate::connection::{ConnectionEvent, Denial};
use crate::store::WriterStats;
use crate::wire::error::Code;
use crate::wire::spec::{MethodSpec, ServiceSpec};
use metrics::{Counter, Gauge, Histogram, SharedString, Unit};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a metric is.
///
/// ```
/// assert!(nats_service::METRICS.iter().any(|metric| metric.kind == nats_service::MetricKind::Histogram));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How values are distributed.
    Histogram,
}

/// One metric that this crate emits with the feature `metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, as Prometheus has it.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// What tells its series apart.
    pub labels: &'static [&'static str],
    /// What it says.
    pub description: &'static str,
}

const ENDPOINT: &[&str] = &["service", "endpoint"];
const ENDED: &[&str] = &["service", "endpoint", "code"];
const CACHED: &[&str] = &["service", "endpoint", "outcome"];
const CALL: &[&str] = &["subject"];
const CALLED: &[&str] = &["subject", "code"];
const BUCKET: &[&str] = &["bucket"];
const EVENT: &[&str] = &["event"];

macro_rules! metrics {
    ($($id:ident = $name:literal, $kind:ident, $labels:ident, $description:literal;)*) => {
        $(const $id: &str = $name;)*

        /// Every metric that this crate emits, with the feature `metrics`. Names and labels are part of the interface.
        ///
        /// ```
        /// for metric in nats_service::METRICS {
        ///     println!("{:<48}{:?}{:?}", metric.name, metric.kind, metric.labels);
        /// }
        /// ```
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            labels: $labels,
            description: $description,
        }),*];
    };
}

metrics! {
    REQUESTS = "nats_service_requests_total", Counter, ENDED, "Requests that have ended, by how: `Ok`, or the code of the error.";
    REQUEST_DURATION = "nats_service_request_duration_seconds", Histogram, ENDPOINT, "From the receipt of a request to its end.";
    IN_FLIGHT = "nats_service_requests_in_flight", Gauge, ENDPOINT, "Requests whose handlers wait for something at this moment.";
    SHED = "nats_service_requests_shed_total", Counter, ENDPOINT, "Requests that were refused because too many were there; they are among the requests, too.";
    FORGED = "nats_service_requests_forged_total", Counter, ENDPOINT, "Requests that were dropped because of their reply subject.";
    CACHE = "nats_service_cache_total", Counter, CACHED, "What the caches of answers did: `hit`, `miss`, `waited`, `stale`, `undecodable`, `bypassed`, `outdated`, `unwritten`.";
    CALLS = "nats_service_calls_total", Counter, CALLED, "Calls that have ended, by how: `Ok`, or the code of the error.";
    CALL_DURATION = "nats_service_call_duration_seconds", Histogram, CALL, "From a call to its answer, repeats included; to the end of a stream.";
    QUEUED = "nats_service_writes_queued", Gauge, BUCKET, "Writes that wait to be sent.";
    WRITES_IN_FLIGHT = "nats_service_writes_in_flight", Gauge, BUCKET, "Writes that were sent and are not acknowledged.";
    WRITTEN = "nats_service_writes_stored_total", Counter, BUCKET, "Writes that were acknowledged.";
    RETRIED = "nats_service_writes_retried_total", Counter, BUCKET, "Attempts that failed and were followed by another.";
    SUPERSEDED = "nats_service_writes_superseded_total", Counter, BUCKET, "Writes that a newer one of their key made needless.";
    GIVEN_UP = "nats_service_writes_given_up_total", Counter, BUCKET, "Writes that ended without being stored, or without it being known.";
    BYTES_PENDING = "nats_service_writes_pending_bytes", Gauge, BUCKET, "Bytes of all writes that have not ended.";
    OLDEST = "nats_service_writes_oldest_seconds", Gauge, BUCKET, "How long the oldest of them has waited.";
    CONNECTION = "nats_service_connection_events_total", Counter, EVENT, "What has happened to connections that `ConnectionEvents` watches: `connected`, `disconnected`, `closed`, `lame_duck`, `slow_consumer`, `denied_publish`, `denied_subscription`, `error`.";
}

/// Tells the recorder what they are.
pub(crate) fn describe() {
    for metric in METRICS {
        let unit = match metric.name {
            name if name.ends_with("_seconds") => Unit::Seconds,
            name if name.ends_with("_bytes") => Unit::Bytes,
            _ => Unit::Count,
        };
        match metric.kind {
            MetricKind::Counter => {
                metrics::describe_counter!(metric.name, unit, metric.description)
            }
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.description),
            MetricKind::Histogram => {
                metrics::describe_histogram!(metric.name, unit, metric.description)
            }
        }
    }
}

/// The instruments of one endpoint.
pub(crate) struct EndpointMetrics {
    labels: [(&'static str, &'static str); 2],
    ok: Counter,
    duration: Histogram,
    in_flight: Gauge,
    shed: Counter,
    forged: Counter,
    /// What the cache's counters were last, each with its instrument.
    cache: Mutex<Vec<(u64, Counter)>>,
}

impl std::fmt::Debug for EndpointMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointMetrics").finish_non_exhaustive()
    }
}

impl EndpointMetrics {
    pub(crate) fn new(service: &ServiceSpec, method: &MethodSpec) -> Self {
        let labels = [("service", service.name), ("endpoint", method.name)];
        let metrics = Self {
            labels,
            ok: requests(&labels, None),
            duration: metrics::histogram!(REQUEST_DURATION, &labels),
            in_flight: metrics::gauge!(IN_FLIGHT, &labels),
            shed: metrics::counter!(SHED, &labels),
            forged: metrics::counter!(FORGED, &labels),
            cache: Mutex::default(),
        };
        // There from the start: a rate needs two readings.
        metrics.ok.increment(0);
        metrics.shed.increment(0);
        metrics.forged.increment(0);
        metrics.in_flight.set(0.0);
        metrics
    }

    pub(crate) fn ended(&self, code: Option<Code>, took: Duration) {
        match code {
            None => self.ok.increment(1),
            code => requests(&self.labels, code).increment(1),
        }
        self.duration.record(took);
    }

    pub(crate) fn shed(&self) {
        self.shed.increment(1);
    }

    pub(crate) fn forged(&self) {
        self.forged.increment(1);
    }

    /// Tells what a cache has counted, by outcome and always in the same order.
    pub(crate) fn cached(&self, counted: impl FnOnce() -> [(&'static str, u64); 8]) {
        // Nothing that can panic runs under the lock.
        let mut told = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counted();
        if told.is_empty() {
            let [service, endpoint] = self.labels;
            let counters = counted.iter().map(|(outcome, _)| {
                let labels = [service, endpoint, ("outcome", *outcome)];
                (0, metrics::counter!(CACHE, &labels))
            });
            told.extend(counters);
        }
        for ((last, counter), (_, now)) in told.iter_mut().zip(counted) {
            counter.increment(now.saturating_sub(*last));
            *last = now.max(*last);
        }
    }

    pub(crate) fn waits(&self) {
        self.in_flight.increment(1);
    }

    pub(crate) fn waits_no_more(&self) {
        self.in_flight.decrement(1);
    }
}

fn requests(labels: &[(&'static str, &'static str); 2], code: Option<Code>) -> Counter {
    let [service, endpoint] = *labels;
    let code = ("code", code.map_or("Ok", Code::name));
    metrics::counter!(REQUESTS, &[service, endpoint, code])
}

/// Counts a call. Its subject is asked for each time: a client may be older than the recorder.
pub(crate) fn call_ended(method: &MethodSpec, subject: &str, code: Option<Code>, took: Duration) {
    let code = code.map_or("Ok", Code::name);
    let subject = match subject == method.subject {
        true => SharedString::const_str(method.subject),
        false => subject.to_owned().into(),
    };
    metrics::counter!(CALLS, "subject" => subject.clone(), "code" => code).increment(1);
    metrics::histogram!(CALL_DURATION, "subject" => subject).record(took);
}

/// What the label `event` may be.
const EVENTS: [&str; 8] = [
    "connected",
    "disconnected",
    "closed",
    "lame_duck",
    "slow_consumer",
    "denied_publish",
    "denied_subscription",
    "error",
];

/// Counts what has happened to a connection. Rare enough to ask for the instrument each time: a connection may be older than
/// the recorder.
pub(crate) fn connection(event: &ConnectionEvent) {
    let name = match event {
        ConnectionEvent::Connected => {
            // The others are there from the start: a rate needs two readings.
            for name in EVENTS {
                metrics::counter!(CONNECTION, "event" => name).increment(0);
            }
            "connected"
        }
        ConnectionEvent::Disconnected => "disconnected",
        ConnectionEvent::Closed => "closed",
        ConnectionEvent::LameDuck => "lame_duck",
        ConnectionEvent::SlowConsumer => "slow_consumer",
        ConnectionEvent::Denied(Denial::Publish { .. }) => "denied_publish",
        ConnectionEvent::Denied(Denial::Subscribe { .. }) => "denied_subscription",
        ConnectionEvent::Error(_) => "error",
    };
    metrics::counter!(CONNECTION, "event" => name).increment(1);
}

/// The instruments of one writer.
pub(crate) struct WriterMetrics {
    queued: Gauge,
    in_flight: Gauge,
    written: Counter,
    retried: Counter,
    superseded: Counter,
    given_up: Counter,
    bytes: Gauge,
    oldest: Gauge,
    /// What was told last: two servers of a process may write to one bucket, and their figures add up.
    told: Mutex<WriterStats>,
}

impl std::fmt::Debug for WriterMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriterMetrics").finish_non_exhaustive()
    }
}

impl WriterMetrics {
    pub(crate) fn new(bucket: &str) -> Self {
        let bucket = || [("bucket", bucket.to_owned())];
        let metrics = Self {
            queued: metrics::gauge!(QUEUED, &bucket()),
            in_flight: metrics::gauge!(WRITES_IN_FLIGHT, &bucket()),
            written: metrics::counter!(WRITTEN, &bucket()),
            retried: metrics::counter!(RETRIED, &bucket()),
            superseded: metrics::counter!(SUPERSEDED, &bucket()),
            given_up: metrics::counter!(GIVEN_UP, &bucket()),
            bytes: metrics::gauge!(BYTES_PENDING, &bucket()),
            oldest: metrics::gauge!(OLDEST, &bucket()),
            told: Mutex::default(),
        };
        // There from the start, at zero.
        for counter in [
            &metrics.written,
            &metrics.retried,
            &metrics.superseded,
            &metrics.given_up,
        ] {
            counter.increment(0);
        }
        for gauge in [
            &metrics.queued,
            &metrics.in_flight,
            &metrics.bytes,
            &metrics.oldest,
        ] {
            gauge.increment(0.0);
        }
        metrics
    }

    /// Tells how things stand.
    pub(crate) fn publish(&self, stats: impl FnOnce() -> WriterStats) {
        let stats = stats();
        // Nothing that can panic runs under the lock.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |counter: &Counter, now: u64, before: u64| {
            if now > before {
                counter.increment(now - before);
            }
        };
        count(&self.written, stats.written, told.written);
        count(&self.retried, stats.retried, told.retried);
        count(&self.superseded, stats.superseded, told.superseded);
        count(&self.given_up, stats.given_up, told.given_up);
        let change = |gauge: &Gauge, now: usize, before: usize| {
            if now != before {
                gauge.increment(now as f64 - before as f64);
            }
        };
        change(&self.queued, stats.queued, told.queued);
        change(&self.in_flight, stats.in_flight, told.in_flight);
        change(&self.bytes, stats.bytes_pending, told.bytes_pending);
        if stats.oldest_pending != told.oldest_pending {
            let oldest = stats.oldest_pending.unwrap_or_default();
            self.oldest.set(oldest.as_secs_f64());
        }
        *told = stats;
    }
}
