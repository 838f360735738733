//! What can be seen from outside: spans, traces across processes, metrics, and the dashboard of them. One subscriber and one
//! recorder serve all tests of this file, since there is one of each in a process.

use futures_util::{StreamExt as _, stream};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use nats_service::layer::Request;
use nats_service::{ByteStream, ConnectionEvents, METRICS, MetricKind, Server, nats_service};
use nats_service_testkit::TestServer;
use nats_service_tests::desk::{
    Act, DeskClient, DeskError, KeeperClient, desk, doing, keeper, task,
};
use nats_service_tests::spout::{self, Act as Drip, SpoutClient, to};
use nats_service_tests::{Nats, PATIENCE, soon, until};
use opentelemetry::trace::{SpanKind, TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tower::util::MapRequestLayer;
use tracing::field::{Field, Visit};
use tracing::{Instrument as _, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
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

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn requests_calls_and_writes_have_spans_of_the_documented_names_and_fields() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let _keeper = keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone());
    client.keep_surely(task("seen")).await.unwrap();
    let write = eyes.span("write", "key", "task.seen").await;
    assert_eq!(write.name, "write");
    let expected = [
        ("otel.name", "sure"),
        ("otel.kind", "producer"),
        ("bucket", "sure"),
        ("key", "task.seen"),
        ("revision", "1"),
        ("code", "Ok"),
    ];
    assert_eq!(write.fields, pairs(&expected));
    let request = eyes.span("request", "rpc.method", "keep_surely").await;
    assert_eq!(request.name, "request");
    let common = [
        ("otel.name", "keeper.keep_surely"),
        ("rpc.system", "nats"),
        ("rpc.method", "keep_surely"),
        ("messaging.destination.name", "keeper.keep_surely"),
        ("code", "Ok"),
    ];
    let mut expected = pairs(&common);
    expected.extend(pairs(&[("otel.kind", "server"), ("rpc.service", "keeper")]));
    assert_eq!(request.fields, expected);
    let call = eyes.span("call", "rpc.method", "keep_surely").await;
    assert_eq!(call.name, "call");
    let mut expected = pairs(&common);
    expected.extend(pairs(&[("otel.kind", "client")]));
    assert_eq!(call.fields, expected);
}

#[tokio::test]
async fn a_span_says_how_its_request_failed() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let _desk = desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    for (act, code) in [
        (Act::Fail, "AlreadyExists"),
        (Act::Panic, "Internal"),
        (Act::PanicLater, "Internal"),
    ] {
        eyes.closed
            .0
            .lock()
            .unwrap()
            .retain(|one| one.fields.get("rpc.method").is_none_or(|it| it != "other"));
        client.other(doing("a", act, "x")).await.unwrap_err();
        for target in ["request", "call"] {
            let span = eyes.span(target, "rpc.method", "other").await;
            assert_eq!(span.fields["code"], code, "{target}");
            assert_eq!(span.fields["otel.status_code"], "ERROR", "{target}");
        }
    }
    client.hasty(doing("a", Act::Hold, "")).await.unwrap_err();
    let span = eyes.span("request", "rpc.method", "hasty").await;
    assert_eq!(span.fields["code"], "DeadlineExceeded");
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

impl Eyes {
    /// Waits for the calls of this subject, and sees that they ended so and have been counted; an empty code is that of a call
    /// that was given up. Spans close in any order, since a stream's task has its own.
    async fn codes(&self, subject: &str, expected: &[&str]) {
        let method = subject.rsplit('.').next().unwrap();
        let of_subject = || {
            let all = self.closed.0.lock().unwrap();
            let all = all.iter().filter(|one| {
                let to = one.fields.get("messaging.destination.name");
                one.target == "nats_service::call" && to.is_some_and(|to| to == subject)
            });
            all.cloned().collect::<Vec<_>>()
        };
        until(&format!("all calls of {subject}"), async || {
            of_subject().len() >= expected.len()
        })
        .await;
        let mut seen = of_subject();
        seen.sort_by_key(|one| one.fields.get("code").cloned());
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let codes: Vec<_> = seen
            .iter()
            .map(|one| one.fields.get("code").map_or("", |code| code))
            .collect();
        assert_eq!(codes, expected, "{subject}");
        for (one, code) in seen.iter().zip(&expected) {
            let name = subject.split_once('.').unwrap().1;
            let mut fields = pairs(&[
                ("otel.name", name),
                ("otel.kind", "client"),
                ("rpc.system", "nats"),
                ("rpc.method", method),
                ("messaging.destination.name", subject),
                ("code", code),
                ("otel.status_code", "ERROR"),
            ]);
            fields.retain(|name, value| {
                !value.is_empty() && (name != "otel.status_code" || !matches!(*code, "" | "Ok"))
            });
            assert_eq!((&*one.name, &one.fields), ("call", &fields));
        }
        let text = self.metrics.render();
        let count = |series: String| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(&*series)?.trim().parse::<usize>().ok())
        };
        let counted: BTreeSet<_> = expected.iter().filter(|code| !code.is_empty()).collect();
        for code in &counted {
            let name = "nats_service_calls_total";
            let series = format!("{name}{{subject=\"{subject}\",code=\"{code}\"}}");
            let often = expected.iter().filter(|one| *one == *code).count();
            assert_eq!(count(series), Some(often), "{subject} {code}:\n{text}");
        }
        let name = "nats_service_call_duration_seconds_count";
        let timed = expected.iter().filter(|code| !code.is_empty()).count();
        let series = format!("{name}{{subject=\"{subject}\"}}");
        assert_eq!(count(series), Some(timed), "{subject}:\n{text}");
    }
}

#[tokio::test]
async fn streams_are_calls_that_end_with_their_streams() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let served = spout::serve_on(nats.client.clone(), |server| server.prefix("seen")).await;
    let client = SpoutClient::new(nats.client.clone());
    let nobody = client.clone().with_prefix("unseen").unwrap();
    let client = client.with_prefix("seen").unwrap();
    let layered = client
        .clone()
        .layer(MapRequestLayer::new(|request: Request| request));

    for client in [&client, &layered] {
        let all = soon("a stream", client.count(to(3))).await.unwrap();
        assert_eq!(soon("all", all.count()).await, 3);
    }
    let all = soon("a stream", client.count(spout::doing(3, Drip::Fail))).await;
    assert_eq!(soon("all", all.unwrap().count()).await, 4);
    let refused = client.count(spout::doing(3, Drip::Refuse));
    soon("an error", refused).await.unwrap_err();
    let mut some = soon("a stream", client.count(spout::doing(3, Drip::Stay)))
        .await
        .unwrap();
    soon("an item", some.next()).await.unwrap().unwrap();
    // A reader that has enough has not failed.
    drop(some);
    served.seen.until_running(0).await;
    eyes.codes(
        "seen.spout.count",
        &["Ok", "Ok", "OutOfRange", "OutOfRange", "Ok"],
    )
    .await;
    soon("an error", nobody.count(to(3))).await.unwrap_err();
    eyes.codes("unseen.spout.count", &["Unavailable"]).await;

    let within = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&within);
    let numbers = stream::iter([1, 2]).inspect(move |_| {
        let name = tracing::Span::current().metadata().map(|span| span.name());
        seen.lock().unwrap().extend(name);
    });
    assert_eq!(soon("a sum", client.sum(1, numbers)).await.unwrap(), 4);
    assert_eq!(*within.lock().unwrap(), ["call", "call"]);
    let fails = client.sum(1, stream::iter([u64::MAX]));
    soon("an error", fails).await.unwrap_err();
    eyes.codes("seen.spout.sum", &["Ok", "OutOfRange"]).await;

    let both = client.echo(stream::iter([spout::Drop::default()]), to(0));
    let both = soon("a stream", both).await.unwrap();
    assert_eq!(soon("all", both.count()).await, 1);
    let refused = client.echo(stream::pending(), spout::doing(0, Drip::Refuse));
    soon("an error", refused).await.unwrap_err();
    eyes.codes("seen.spout.echo", &["Ok", "OutOfRange"]).await;

    // Given up before it was answered: nobody knows how it would have ended, and it is not counted.
    let given_up = tokio::time::timeout(Duration::from_millis(20), client.late().into_future());
    given_up.await.unwrap_err();
    soon("an error", client.late()).await.unwrap_err();
    eyes.codes("seen.spout.late", &["", "DeadlineExceeded"])
        .await;
}

#[tokio::test]
async fn a_question_to_every_instance_is_one_call_that_ends_with_its_answers() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let server = Server::new(nats.client.clone()).serve(CrewServer::new(Sailor));
    let _crew = server.prefix("seen").start().await.unwrap();
    let client = CrewClient::new(nats.client.clone());
    let nobody = client.clone().with_prefix("unseen").unwrap();
    let client = client.with_prefix("seen").unwrap();
    let layered = client
        .clone()
        .layer(MapRequestLayer::new(|request: Request| request));
    for client in [&client, &layered] {
        soon("an answer", client.number()).await.unwrap();
        let all = soon("all", client.number().many().most(1)).await.unwrap();
        assert_eq!(all.len(), 1);
    }
    let answers = soon("an answer", client.number().many().stream()).await;
    drop(answers.unwrap());
    eyes.codes("seen.crew.number", &["Ok"; 5]).await;
    soon("an error", nobody.number().many()).await.unwrap_err();
    eyes.codes("unseen.crew.number", &["Unavailable"]).await;
}

#[tokio::test]
async fn a_trace_goes_with_a_stream_and_with_a_question_to_every_instance() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let _spout = spout::spout(&nats.server).await;
    let server = Server::new(nats.client.clone()).serve(CrewServer::new(Sailor));
    let _crew = server.start().await.unwrap();
    let (spout, crew) = (
        SpoutClient::new(nats.client.clone()),
        CrewClient::new(nats.client.clone()),
    );
    let ask = async {
        let all = soon("a stream", spout.plain(1, 3)).await.unwrap();
        assert_eq!(soon("all", all.count()).await, 3);
        let all = soon("all", crew.number().many().most(1)).await.unwrap();
        assert_eq!(all.len(), 1);
    };
    ask.instrument(tracing::info_span!("root of streams")).await;
    let trace = eyes.trace("root of streams", 5).await;
    for name in ["spout.plain", "crew.number"] {
        let of = |kind: SpanKind| {
            let mut all = trace.iter();
            all.find(|one| one.name == name && one.span_kind == kind)
                .unwrap_or_else(|| panic!("{kind:?} of {name}"))
        };
        let caller = of(SpanKind::Client).span_context.span_id();
        assert_eq!(of(SpanKind::Server).parent_span_id, caller, "{name}");
    }
}

/// Calls the keeper.
#[nats_service]
trait Middle {
    async fn pass(&self, id: String) -> Result<(), DeskError>;
}

struct Passer(KeeperClient);

impl Middle for Passer {
    async fn pass(&self, id: String) -> Result<(), DeskError> {
        let kept = self.0.keep_surely(task(&id)).await;
        kept.map(drop)
            .map_err(|error| error.into_service().expect("no other error"))
    }
}

#[tokio::test]
async fn a_trace_goes_from_the_caller_through_handlers_into_the_entry_that_is_stored() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let _keeper = keeper(&nats).await;
    let passer = Passer(KeeperClient::new(nats.client.clone()));
    let server = Server::new(nats.client.clone()).serve(MiddleServer::new(passer));
    let _middle = server.start().await.unwrap();
    let client = MiddleClient::new(nats.client.clone());

    let root = tracing::info_span!("root");
    let id = root.context().span().span_context().trace_id();
    client
        .pass("traced".to_owned())
        .into_future()
        .instrument(root)
        .await
        .unwrap();

    // The root; a call and a request, twice; a write.
    let trace = eyes.trace("root", 6).await;
    assert!(trace.iter().all(|one| one.span_context.trace_id() == id));
    let parent_of = |name: &str, kind: SpanKind| {
        let mut all = trace.iter();
        let one = all
            .find(|one| one.name == name && one.span_kind == kind)
            .unwrap_or_else(|| panic!("{name}"));
        let mut all = trace.iter();
        let parent = all.find(|other| other.span_context.span_id() == one.parent_span_id);
        parent.map(|parent| (parent.name.to_string(), parent.span_kind.clone()))
    };
    let chain = [
        ("root", SpanKind::Internal),
        ("middle.pass", SpanKind::Client),
        ("middle.pass", SpanKind::Server),
        ("keeper.keep_surely", SpanKind::Client),
        ("keeper.keep_surely", SpanKind::Server),
        ("sure", SpanKind::Producer),
    ];
    for pair in chain.windows(2) {
        let ((parent, kind), (name, own)) = (pair[0].clone(), pair[1].clone());
        assert_eq!(
            parent_of(name, own),
            Some((parent.to_owned(), kind)),
            "{name}"
        );
    }

    // A reader of the bucket finds the way back.
    let bucket = nats.js.get_stream("KV_sure").await.unwrap();
    let entry = bucket
        .get_last_raw_message_by_subject("$KV.sure.task.traced")
        .await
        .unwrap();
    let link = entry
        .headers
        .get("traceparent")
        .expect("a link")
        .as_str()
        .to_owned();
    assert!(link.contains(&id.to_string()), "{link}");
}

/// Keeps its answers as objects.
#[nats_service]
trait Press {
    #[object_store(bucket = "printed", key = "page.<name>")]
    async fn page(&self, name: String) -> String;

    #[object_store(bucket = "printed", key = "roll.<name>")]
    async fn roll(&self, name: String) -> ByteStream;
}

struct Printer;

impl Press for Printer {
    async fn page(&self, name: String) -> String {
        name
    }

    async fn roll(&self, name: String) -> ByteStream {
        ByteStream::new(std::io::Cursor::new(name.into_bytes()))
    }
}

#[tokio::test]
async fn an_object_that_keeps_an_answer_links_to_the_write_that_made_it() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let running = server.serve(PressServer::new(Printer)).start().await;
    let running = running.expect("a service");
    let client = PressClient::new(nats.client.clone()).with_jetstream(nats.js.clone());

    let printing = tracing::info_span!("printing");
    let id = printing.context().span().span_context().trace_id();
    let calls = async {
        client.page("a".to_owned()).await.expect("an answer");
        client.roll("a".to_owned()).await.expect("a stream");
    };
    calls.instrument(printing).await;
    running.shutdown(PATIENCE).await.expect("all is stored");

    for name in ["page.a", "roll.a"] {
        let write = eyes.span("write", "key", name).await;
        assert_eq!(write.fields["code"], "Ok", "{name}");
        assert_eq!(write.fields.get("revision"), None, "{name}");
    }
    // The root; two calls, two requests, two writes.
    let trace = eyes.trace("printing", 7).await;
    let mut writes = trace.iter().filter(|one| one.name == "printed");
    for name in ["page.a", "roll.a"] {
        let stores = PressStores::new(nats.js.clone());
        let info = match name {
            "page.a" => stores.page().at("a").expect("a name").info().await,
            _ => stores.roll().at("a").expect("a name").info().await,
        };
        let info = info.expect("a read").expect("an object");
        let link = info.headers.get("traceparent").expect("a link").as_str();
        assert!(link.contains(&id.to_string()), "{link}");
        let made = |write: &SpanData| link.contains(&write.span_context.span_id().to_string());
        assert!(writes.clone().any(made), "{name}: {link}");
        assert!(info.content_type().is_some(), "what was there stays");
    }
    assert!(writes.all(|write| write.span_kind == SpanKind::Producer));
    // Other clients find it where they look: in the headers of the metadata.
    let foreign = nats.js.get_object_store("printed").await.expect("a bucket");
    let info = foreign.info("page.a").await.expect("an object");
    let headers = info.headers.expect("headers");
    assert!(headers.get("traceparent").is_some(), "{headers:?}");
}

#[tokio::test]
async fn a_trace_parent_that_is_garbage_harms_nobody() {
    let _eyes = &*EYES;
    let nats = Nats::start().await;
    let _desk = desk(&nats).await;
    for garbage in [
        "",
        "x",
        "00-0-0-00",
        &"9".repeat(4000),
        "00-00000000000000000000000000000000-0000000000000000-01",
    ] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("traceparent", garbage);
        headers.insert("tracestate", garbage);
        let body = serde_json::to_vec(&task("a")).unwrap();
        let asked = nats
            .client
            .request_with_headers("desk.echo", headers, body.into());
        let reply = soon("a reply", asked).await.unwrap();
        assert!(reply.headers.is_none(), "{garbage}: {reply:?}");
    }
}

/// Remembers its answers.
#[nats_service]
trait Shelf {
    #[kv_cache(bucket = "prices", key = "price.<article>", ttl = "1m")]
    async fn price(&self, article: String) -> u32;
}

struct Slow;

impl Shelf for Slow {
    async fn price(&self, article: String) -> u32 {
        article.len() as u32
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

/// Names of series as names of metrics.
fn names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in text.split("nats_service_").skip(1) {
        let end = part
            .find(|c: char| !c.is_ascii_lowercase() && c != '_')
            .unwrap_or(part.len());
        let mut name = &part[..end];
        for suffix in ["_bucket", "_sum", "_count"] {
            name = name.strip_suffix(suffix).unwrap_or(name);
        }
        names.insert(format!("nats_service_{name}"));
    }
    names
}

fn documented() -> BTreeSet<String> {
    METRICS
        .iter()
        .map(|metric| metric.name.to_owned())
        .collect()
}

#[tokio::test]
async fn every_metric_of_the_list_is_emitted_with_its_labels_and_no_other() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let _keeper = keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone());
    client.keep(task("a")).await.unwrap();
    client.keep(doing("a", Act::Fail, "")).await.unwrap_err();
    // A handler that waits is in flight.
    let held = tokio::spawn(client.keep(doing("a", Act::Hold, "")).into_future());
    let in_flight = |count: &str| {
        format!(r#"nats_service_requests_in_flight{{service="keeper",endpoint="keep"}} {count}"#)
    };
    until("one is in flight", async || {
        eyes.metrics.render().contains(&in_flight("1"))
    })
    .await;
    _keeper.worker.gate.add_permits(1);
    held.await.unwrap().unwrap();
    until("none is in flight", async || {
        eyes.metrics.render().contains(&in_flight("0"))
    })
    .await;
    until("the writes are counted", async || {
        let text = eyes.metrics.render();
        let stored = text
            .lines()
            .find(|line| line.starts_with(r#"nats_service_writes_stored_total{bucket="kept"}"#));
        stored.is_some_and(|line| {
            line.rsplit(' ')
                .next()
                .is_some_and(|count| count.parse::<u64>().unwrap() >= 2)
        })
    })
    .await;
    let shelf = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let _shelf = shelf.serve(ShelfServer::new(Slow)).start().await.unwrap();
    let client = ShelfClient::new(nats.client.clone());
    until("an answer comes from the cache", async || {
        client.price("a".to_owned()).await.unwrap();
        let text = eyes.metrics.render();
        let hit = r#"nats_service_cache_total{service="shelf",endpoint="price",outcome="hit"}"#;
        let hit = text.lines().find_map(|line| line.strip_prefix(hit));
        hit.is_some_and(|count| count.trim() != "0")
    })
    .await;
    watched_connection(eyes).await;
    let text = eyes.metrics.render();
    assert_eq!(names(&text), documented());
    for line in text
        .lines()
        .filter(|line| line.starts_with("# TYPE nats_service"))
    {
        let mut words = line.split(' ').skip(2);
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
        let expected = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        assert_eq!(kind, expected, "{name}");
    }
    for line in text.lines().filter(|line| line.starts_with("nats_service")) {
        let (name, labels) = line.split_once('{').expect("labels");
        let name = names(name).pop_first().unwrap();
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
        let labels = labels.split_once('}').unwrap().0.split(',');
        let labels = labels
            .filter_map(|pair| Some(pair.split_once('=')?.0))
            .filter(|label| *label != "le");
        assert_eq!(labels.collect::<Vec<_>>(), metric.labels, "{line}");
    }
    for series in [
        r#"nats_service_requests_total{service="keeper",endpoint="keep",code="AlreadyExists"}"#,
        r#"nats_service_calls_total{subject="keeper.keep",code="AlreadyExists"}"#,
    ] {
        assert!(text.contains(series), "{series}:\n{text}");
    }
}

const USERS: &str = r#"
authorization { users: [
  { user: "narrow", password: "p", permissions: { publish: { deny: ["no.>"] }, subscribe: { deny: ["no.>"] } } }
] }
"#;

/// How often it says that this has happened to a connection.
fn connection_events(eyes: &Eyes, event: &str) -> Option<u64> {
    let series = format!(r#"nats_service_connection_events_total{{event="{event}"}} "#);
    let text = eyes.metrics.render();
    let count = text.lines().find_map(|line| line.strip_prefix(&series))?;
    count.parse().ok()
}

/// A connection to which everything happens that can be brought about.
async fn watched_connection(eyes: &Eyes) {
    let builder = TestServer::builder().jetstream(false).config(USERS);
    let server = builder.start().await.expect("a server");
    let events = ConnectionEvents::new();
    let options = async_nats::ConnectOptions::with_user_and_password("narrow".into(), "p".into());
    let options = events.install(options).subscription_capacity(1);
    let client = options.connect(server.url()).await.expect("a connection");
    until("it is there", async || {
        connection_events(eyes, "connected").is_some()
    })
    .await;
    // Those that have not happened are there as well, so that their rate can be told.
    for event in ["denied_publish", "slow_consumer", "lame_duck", "error"] {
        assert!(connection_events(eyes, event).is_some(), "{event}");
    }
    let before = |event: &str| connection_events(eyes, event).unwrap_or_default();
    let (published, subscribed) = (before("denied_publish"), before("denied_subscription"));
    let slow = before("slow_consumer");
    let _deaf = client.subscribe("no.ear").await.expect("a line is sent");
    client.publish("no.mouth", "".into()).await.expect("it is");
    let _unread = client.subscribe("flood").await.expect("a subscription");
    for _ in 0..100 {
        let sent = client.publish("flood", "x".into()).await;
        sent.expect("a connection");
    }
    until("all of it is counted", async || {
        before("denied_publish") == published + 1
            && before("denied_subscription") == subscribed + 1
            && before("slow_consumer") > slow
    })
    .await;
    assert_eq!(events.counts().denials, 2);
    server.kill().await.expect("a kill");
    until("it is lost", async || before("disconnected") > 0).await;
}

#[test]
fn the_dashboard_shows_every_metric_and_names_none_that_is_not_there() {
    let file = root().join("examples/observability/dashboard.json");
    let text = std::fs::read_to_string(file).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            shown.extend(names(target["expr"].as_str().unwrap()));
        }
    }
    assert_eq!(shown, documented());
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            assert!(names(query).is_subset(&documented()), "{query}");
        }
    }
}

#[test]
fn the_guide_lists_every_metric_as_it_is() {
    let text = std::fs::read_to_string(root().join("docs/guide/observability.md")).unwrap();
    for metric in METRICS {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let line = format!("| `{}` | {kind} | {} |", metric.name, labels.join(", "));
        assert!(text.contains(&line), "the guide lacks: {line}");
    }
    assert_eq!(names(&text), documented());
}
