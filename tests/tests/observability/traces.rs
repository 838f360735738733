//! Traces that go from one process into another, and into what is stored.

use super::{CrewClient, CrewServer, EYES, Sailor};
use futures_util::StreamExt as _;
use nats_service::{ByteStream, Server, nats_service};
use nats_service_tests::desk::{DeskError, KeeperClient, desk, keeper, task};
use nats_service_tests::spout::{self, SpoutClient};
use nats_service_tests::{Nats, PATIENCE, soon};
use opentelemetry::trace::{SpanKind, TraceContextExt as _};
use opentelemetry_sdk::trace::SpanData;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

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
