//! What can be seen from outside: spans, traces across processes, metrics, and the dashboard of them. One subscriber and one
//! recorder serve all tests of this folder, since there is one of each in a process.

mod metrics;
mod spans;
mod traces;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use nats_service::nats_service;
use nats_service_tests::desk::DeskError;
use nats_service_tests::until;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What all tests look through.
struct Eyes {
    closed: Closed,
    exporter: InMemorySpanExporter,
    metrics: PrometheusHandle,
    _provider: SdkTracerProvider,
}

static EYES: LazyLock<Eyes> = LazyLock::new(|| {
    let metrics = PrometheusBuilder::new()
        .set_buckets(&[0.01, 1.0])
        .expect("buckets");
    let metrics = metrics.install_recorder().expect("the first recorder");
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let closed = Closed::default();
    tracing_subscriber::registry()
        .with(closed.clone())
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("tests")))
        .init();
    Eyes {
        closed,
        exporter,
        metrics,
        _provider: provider,
    }
});

/// A span that has ended.
#[derive(Debug, Clone, Default)]
struct Seen {
    target: String,
    name: String,
    fields: BTreeMap<String, String>,
}

/// Collects spans when they end.
#[derive(Clone, Default)]
struct Closed(Arc<Mutex<Vec<Seen>>>);

struct Fields<'f>(&'f mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Closed {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        id: &tracing::Id,
        context: Context<'_, S>,
    ) {
        let metadata = attributes.metadata();
        let mut seen = Seen {
            target: metadata.target().to_owned(),
            name: metadata.name().to_owned(),
            fields: BTreeMap::new(),
        };
        attributes.record(&mut Fields(&mut seen.fields));
        context
            .span(id)
            .expect("the span")
            .extensions_mut()
            .insert(seen);
    }

    fn on_record(
        &self,
        id: &tracing::Id,
        values: &tracing::span::Record<'_>,
        context: Context<'_, S>,
    ) {
        let span = context.span(id).expect("the span");
        if let Some(seen) = span.extensions_mut().get_mut::<Seen>() {
            values.record(&mut Fields(&mut seen.fields));
        }
    }

    fn on_close(&self, id: tracing::Id, context: Context<'_, S>) {
        let seen = context
            .span(&id)
            .and_then(|span| span.extensions_mut().remove::<Seen>());
        self.0.lock().unwrap().extend(seen);
    }
}

impl Eyes {
    /// The span with this field, once it has ended.
    async fn span(&self, target: &str, field: &str, value: &str) -> Seen {
        let target = format!("nats_service::{target}");
        let find = || {
            let all = self.closed.0.lock().unwrap();
            let mut all = all.iter();
            let found = all.find(|one| {
                one.target == target && one.fields.get(field).is_some_and(|it| it == value)
            });
            found.cloned()
        };
        until(
            &format!("a span of {target} with {field}={value}"),
            async || find().is_some(),
        )
        .await;
        find().unwrap()
    }

    /// All that was exported of the trace with this span.
    async fn trace(&self, root: &'static str, count: usize) -> Vec<SpanData> {
        let find = || {
            let all = self.exporter.get_finished_spans().unwrap();
            let root = all.iter().find(|one| one.name == root)?;
            let trace = root.span_context.trace_id();
            let of_it = all
                .iter()
                .filter(|one| one.span_context.trace_id() == trace);
            Some(of_it.cloned().collect::<Vec<_>>())
        };
        until("the trace is whole", async || {
            find().is_some_and(|all| all.len() >= count)
        })
        .await;
        find().unwrap()
    }
}

/// Every instance answers.
#[nats_service]
trait Crew {
    #[endpoint(queue_group = false)]
    async fn number(&self) -> Result<u32, DeskError>;
}

struct Sailor;

impl Crew for Sailor {
    async fn number(&self) -> Result<u32, DeskError> {
        Ok(7)
    }
}
