//! What can be seen of a service from outside: spans, and behind features traces across processes and metrics.
//!
//! | span, target | of | fields |
//! |---|---|---|
//! | `request`, `nats_service::request` | one request, from its turn to its reply | `otel.name`, `otel.kind`, `rpc.system`, `rpc.service`, `rpc.method`, `messaging.destination.name`; at its end `code`, `otel.status_code` |
//! | `call`, `nats_service::call` | one call of a client: repeats included; to the end of a stream, or of the answers of all instances | the same, without `rpc.service` |
//! | `write`, `nats_service::write` | one write, from its submission to its end | `otel.name`, `otel.kind`, `bucket`, `key`; at its end `revision` or `code`, `otel.status_code` |
//!
//! Names and fields are part of the interface: dashboards and filters depend on them. All are of level INFO. Where no subscriber wants
//! them, each costs a comparison. Left out: logs, which stand where things happen.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
mod trace;

pub(crate) use metrics::{EndpointMetrics, WriterMetrics, call_ended, connection, describe};
#[cfg(feature = "metrics")]
pub use metrics::{METRICS, Metric, MetricKind};
pub(crate) use trace::{Trace, inject};

use crate::wire::error::Code;
use crate::wire::spec::{MethodSpec, ServiceSpec};
use async_nats::{HeaderMap, Subject};
use std::time::Instant;
use tracing::Span;
use tracing::field::Empty;

/// The span of a request that is served; none when nobody wants it.
#[inline]
pub(crate) fn request(
    service: &ServiceSpec,
    method: &MethodSpec,
    subject: &str,
    headers: Option<&HeaderMap>,
) -> Span {
    // A comparison with a number in memory; the rest is not even jumped over.
    if tracing::level_filters::LevelFilter::current() < tracing::Level::INFO {
        return Span::none();
    }
    request_span(service, method, subject, headers)
}

#[cold]
fn request_span(
    service: &ServiceSpec,
    method: &MethodSpec,
    subject: &str,
    headers: Option<&HeaderMap>,
) -> Span {
    let span = tracing::info_span!(
        target: "nats_service::request",
        "request",
        otel.name = method.subject,
        otel.kind = "server",
        rpc.system = "nats",
        rpc.service = service.name,
        rpc.method = method.name,
        messaging.destination.name = subject,
        code = Empty,
        otel.status_code = Empty,
    );
    trace::continue_from(&span, headers);
    span
}

/// Whether a call is to have a span, or is counted.
#[inline]
pub(crate) fn watches_calls() -> bool {
    cfg!(feature = "metrics")
        || tracing::level_filters::LevelFilter::current() >= tracing::Level::INFO
}

/// A call that is watched: its span, and what counts it. It ends when this goes, in the way that was said of it last. A call
/// that was given up before anything was said is not counted.
#[derive(Debug)]
pub(crate) struct WatchedCall {
    span: Span,
    subject: Subject,
    method: &'static MethodSpec,
    begun: Instant,
    /// How it ends: well, or with an error.
    said: Option<Option<Code>>,
}

impl WatchedCall {
    /// None where nobody wants to know.
    #[inline]
    pub(crate) fn begin(
        method: &'static MethodSpec,
        subject: impl FnOnce() -> Subject,
    ) -> Option<Box<Self>> {
        watches_calls().then(|| Self::new(method, subject()))
    }

    pub(crate) fn new(method: &'static MethodSpec, subject: Subject) -> Box<Self> {
        Box::new(Self {
            span: call(method, &subject),
            subject,
            method,
            begun: Instant::now(),
            said: None,
        })
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// It ends like this, unless something else is said later.
    pub(crate) fn says(&mut self, code: Option<Code>) {
        self.said = Some(code);
    }
}

impl Drop for WatchedCall {
    fn drop(&mut self) {
        if let Some(code) = self.said {
            ended(&self.span, code);
            call_ended(self.method, &self.subject, code, self.begun.elapsed());
        }
    }
}

/// The span of a call.
fn call(method: &MethodSpec, subject: &str) -> Span {
    tracing::info_span!(
        target: "nats_service::call",
        "call",
        otel.name = method.subject,
        otel.kind = "client",
        rpc.system = "nats",
        rpc.method = method.name,
        messaging.destination.name = subject,
        code = Empty,
        otel.status_code = Empty,
    )
}

/// The span of a write, under whatever is current; none when nobody wants it.
#[inline]
pub(crate) fn write(bucket: &str, key: &str) -> Span {
    if tracing::level_filters::LevelFilter::current() < tracing::Level::INFO {
        return Span::none();
    }
    tracing::info_span!(
        target: "nats_service::write",
        "write",
        otel.name = bucket,
        otel.kind = "producer",
        bucket,
        key,
        revision = Empty,
        code = Empty,
        otel.status_code = Empty,
    )
}

/// Says how a request or a call ended.
pub(crate) fn ended(span: &Span, code: Option<Code>) {
    if span.is_disabled() {
        return;
    }
    span.record("code", code.map_or("Ok", Code::name));
    if code.is_some() {
        span.record("otel.status_code", "ERROR");
    }
}

/// Says that a write is stored; with its revision, where the server told it.
pub(crate) fn written(span: &Span, revision: Option<u64>) {
    if span.is_disabled() {
        return;
    }
    span.record("code", "Ok");
    if let Some(revision) = revision {
        span.record("revision", revision);
    }
}

/// Says that a write has ended without being stored, or without that being known.
pub(crate) fn unwritten(span: &Span) {
    if span.is_disabled() {
        return;
    }
    span.record("code", "NotStored");
    span.record("otel.status_code", "ERROR");
}
