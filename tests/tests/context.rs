//! What a handler is told of its call, and what it can say besides its answer: headers both ways, the caller's time, the end.

use async_nats::HeaderMap;
use nats_service::{CallError, Code, Context, Error, Server, nats_service};
use nats_service_tests::{Nats, connect, soon, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

#[nats_service(version = "1.0.0", timeout = "20s")]
trait Probe {
    /// What the context says.
    async fn look(&self, first: u8, #[context] ctx: &Context, last: u8) -> Vec<String>;

    /// Its only argument is no part of the body.
    async fn alone(&self, #[nats_service::context] ctx: &Context) -> Option<String>;

    /// Sets a header, and fails if it is told to.
    async fn mark(&self, fail: bool, #[context] ctx: &Context) -> Result<u64, Error>;

    /// Waits for the gate, with a task beside it that waits for the end of the call.
    async fn hold(&self, #[context] ctx: &Context, id: u64) -> u64;

    /// How many milliseconds it has been given.
    async fn left(&self, #[context] ctx: &Context) -> u64;

    /// Asks itself, on behalf of the same call.
    async fn relay(&self, #[context] ctx: &Context, sleep: u64) -> Result<u64, Error>;

    /// Has a key, which is not made of the context.
    #[kv_store(bucket = "marks", key = "mark.<id>", write = "before_reply")]
    async fn keep(&self, #[context] ctx: &Context, id: String) -> Result<String, Error>;
}

#[derive(Clone)]
struct Hand(Arc<Seen>);

struct Seen {
    begun: AtomicUsize,
    ended: AtomicUsize,
    gate: Semaphore,
    client: ProbeClient,
}

impl Probe for Hand {
    async fn look(&self, first: u8, ctx: &Context, last: u8) -> Vec<String> {
        vec![
            format!("{first}{last}"),
            ctx.header("X-Tenant").unwrap_or_default().to_owned(),
            ctx.header("X-All").unwrap_or_default().to_owned(),
            ctx.subject().to_owned(),
            ctx.service().to_owned(),
            ctx.endpoint().to_owned(),
            ctx.instance().to_owned(),
            format!("{:?}", ctx.caller()),
        ]
    }

    async fn alone(&self, ctx: &Context) -> Option<String> {
        ctx.caller().map(|caller| caller.account)
    }

    async fn mark(&self, fail: bool, ctx: &Context) -> Result<u64, Error> {
        let set = |name: &str, value: &str| {
            ctx.set_header(name, value)
                .map_err(|error| Error::invalid_argument(error.to_string()))
        };
        set("X-Mark", "first")?;
        set("X-Mark", "second")?;
        assert!(set("Nats-Service-Error", "forged").is_err());
        if fail {
            return Err(Error::not_found("no such thing"));
        }
        Ok(7)
    }

    async fn hold(&self, ctx: &Context, id: u64) -> u64 {
        self.0.begun.fetch_add(1, SeqCst);
        let (seen, ctx) = (self.0.clone(), ctx.clone());
        let beside = tokio::spawn({
            let seen = seen.clone();
            async move {
                ctx.cancelled().await;
                seen.ended.fetch_add(1, SeqCst);
            }
        });
        self.0.gate.acquire().await.expect("a gate").forget();
        drop(beside);
        id
    }

    async fn left(&self, ctx: &Context) -> u64 {
        ctx.remaining().as_millis() as u64
    }

    async fn relay(&self, ctx: &Context, sleep: u64) -> Result<u64, Error> {
        tokio::time::sleep(Duration::from_millis(sleep)).await;
        let client = self.0.client.with_context(ctx);
        let answer = client.left().await;
        answer.map_err(|error| Error::new(error.code(), error.to_string()))
    }

    async fn keep(&self, ctx: &Context, id: String) -> Result<String, Error> {
        ctx.set_header("X-Kept", &id)
            .map_err(|error| Error::internal(error.to_string()))?;
        Ok(id)
    }
}

struct Probed {
    nats: Nats,
    seen: Arc<Seen>,
    client: ProbeClient,
    _running: nats_service::Running,
}

async fn probe(change: impl FnOnce(Server) -> Server) -> Probed {
    let nats = Nats::start().await;
    let (served, js) = connect(&nats.server).await;
    let seen = Arc::new(Seen {
        begun: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        gate: Semaphore::new(0),
        client: ProbeClient::new(served.clone()),
    });
    let server = Server::new(served).with_jetstream(js);
    let server = change(server.serve(ProbeServer::new(Hand(seen.clone()))));
    let running = soon("a start", server.start()).await.expect("a server");
    let client = ProbeClient::new(nats.client.clone());
    Probed {
        nats,
        seen,
        client,
        _running: running,
    }
}

/// Sends a request with these headers as another language's client would.
async fn raw(
    probed: &Probed,
    subject: &'static str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> async_nats::Message {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let sent = probed
        .nats
        .client
        .request_with_headers(subject, map, body.into());
    soon("a reply", sent).await.expect("a reply")
}

#[tokio::test]
async fn a_handler_sees_the_headers_of_its_call_and_where_it_came_in() {
    let probed = probe(|server| server).await;
    let client = probed.client.with_header("X-All", "every call").unwrap();
    let look = client.look(1, 2).header("X-Tenant", "acme");
    let seen = soon("a look", look).await.unwrap();
    assert_eq!(
        seen[..6],
        ["12", "acme", "every call", "probe.look", "probe", "look"]
    );
    assert!(!seen[6].is_empty());
    assert_eq!(seen[7], "None");
    // One call's own header takes the place of the client's.
    let look = client.look(1, 2).header("X-All", "this call");
    assert_eq!(soon("a look", look).await.unwrap()[2], "this call");
    assert_eq!(
        soon("a look", client.look(1, 2)).await.unwrap()[2],
        "every call"
    );
}

#[tokio::test]
async fn a_method_whose_only_argument_is_its_context_has_no_body() {
    let probed = probe(|server| server).await;
    assert_eq!(
        soon("an answer", probed.client.alone()).await.unwrap(),
        None
    );
    let reply = raw(&probed, "probe.alone", &[], "").await;
    assert_eq!(&reply.payload[..], b"null");
}

#[tokio::test]
async fn a_header_that_a_handler_sets_comes_with_its_answer_and_with_its_error() {
    let probed = probe(|server| server).await;
    let reply = soon("an answer", probed.client.mark(false).reply())
        .await
        .unwrap();
    assert_eq!(reply.value, 7);
    assert_eq!(reply.headers.get("X-Mark").unwrap().as_str(), "second");
    assert!(reply.headers.get("Nats-Service-Error").is_none());

    let reply = raw(&probed, "probe.mark", &[], "true").await;
    let headers = reply.headers.expect("headers");
    assert_eq!(headers.get("X-Mark").unwrap().as_str(), "second");
    assert_eq!(
        headers.get("Nats-Service-Error-Code").unwrap().as_str(),
        "404"
    );

    let kept = soon("an answer", probed.client.keep("a".to_string()).reply())
        .await
        .unwrap();
    assert_eq!(kept.headers.get("X-Kept").unwrap().as_str(), "a");
    assert_eq!(kept.revision, Some(1));
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_fails_the_call_and_sends_nothing() {
    let probed = probe(|server| server).await;
    for (name, value) in [
        ("X-A", "a\r\nNats-Service-Error: x"),
        ("Nats-Msg-Id", "1"),
        ("X A", "1"),
    ] {
        let call = probed
            .client
            .look(1, 2)
            .header(name, value)
            .header("X-B", "1");
        let error = soon("an error", call).await.unwrap_err();
        assert!(matches!(error, CallError::Header(_)), "{error:?}");
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(probed.client.clone().with_header(name, value).is_err());
    }
    let huge = "x".repeat(2 << 20);
    let error = soon("an error", probed.client.look(1, 2).header("X-Huge", &huge)).await;
    assert!(
        matches!(error, Err(CallError::TooLarge { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_caller_s_shorter_time_is_the_handler_s_and_stops_it() {
    let probed = probe(|server| server).await;
    let whole = soon("an answer", probed.client.left()).await.unwrap();
    assert!((15_000..=20_000).contains(&whole), "{whole}");
    let short = probed.client.left().timeout(Duration::from_secs(3));
    let short = soon("an answer", short).await.unwrap();
    assert!((1..=3_000).contains(&short), "{short}");
    // More than the contract says is not granted.
    let long = probed.client.left().timeout(Duration::from_secs(300));
    assert!(soon("an answer", long).await.unwrap() <= 20_000);

    let begun = Instant::now();
    let held = probed.client.hold(1).timeout(Duration::from_secs(2));
    let error = soon("an error", held).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    until("the call's own task ends", async || {
        probed.seen.ended.load(SeqCst) == 1
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "not stopped before the endpoint's time"
    );
}

#[tokio::test]
async fn work_whose_caller_has_gone_is_not_begun() {
    let probed = probe(|server| server.max_in_flight(1)).await;
    let first = tokio::spawn(probed.client.hold(1).into_future());
    until("the first runs", async || {
        probed.seen.begun.load(SeqCst) == 1
    })
    .await;
    // The second waits for its turn, for longer than its caller does.
    let second = probed.client.hold(2).timeout(Duration::from_millis(200));
    let error = soon("an error", second).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let third = tokio::spawn(probed.client.hold(3).into_future());
    probed.seen.gate.add_permits(2);
    assert_eq!(soon("the first", first).await.unwrap().unwrap(), 1);
    assert_eq!(soon("the third", third).await.unwrap().unwrap(), 3);
    assert_eq!(probed.seen.begun.load(SeqCst), 2, "the second was begun");

    // No time at all: it is refused when it arrives.
    let reply = raw(&probed, "probe.hold", &[("Nats-Service-Timeout", "0")], "4").await;
    let code = reply
        .headers
        .as_ref()
        .and_then(|headers| headers.get("Nats-Service-Error-Code"));
    assert_eq!(code.map(|code| code.as_str()), Some("504"));
    assert_eq!(probed.seen.begun.load(SeqCst), 2);
}

#[tokio::test]
async fn a_time_that_is_no_number_is_as_if_it_were_not_there() {
    let probed = probe(|server| server).await;
    for garbage in ["", "soon", "-5", "99999999999999999999999999", "1e3"] {
        let reply = raw(
            &probed,
            "probe.left",
            &[("Nats-Service-Timeout", garbage)],
            "",
        )
        .await;
        let left: u64 = serde_json::from_slice(&reply.payload).expect("a number");
        assert!(left > 15_000, "{garbage:?}: {left}");
    }
}

#[tokio::test]
async fn a_call_on_behalf_of_another_has_no_more_time_than_that_one() {
    let probed = probe(|server| server).await;
    let relayed = probed.client.relay(100).timeout(Duration::from_secs(3));
    let left = soon("an answer", relayed).await.unwrap();
    assert!((1..=2_900).contains(&left), "{left}");

    // A deadline that has passed sends nothing.
    let late = probed.client.left().deadline(Instant::now());
    let error = soon("an error", late).await.unwrap_err();
    assert!(matches!(error, CallError::Late { .. }), "{error:?}");
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_end_of_a_call_is_told_to_what_works_for_it() {
    let probed = probe(|server| server).await;
    let held = tokio::spawn(probed.client.hold(1).into_future());
    until("it runs", async || probed.seen.begun.load(SeqCst) == 1).await;
    assert_eq!(probed.seen.ended.load(SeqCst), 0);
    probed.seen.gate.add_permits(1);
    soon("an answer", held).await.unwrap().unwrap();
    until("its task is told", async || {
        probed.seen.ended.load(SeqCst) == 1
    })
    .await;
}

#[tokio::test]
async fn a_plain_call_carries_no_header() {
    let nats = Nats::start().await;
    let mut requests = nats.client.subscribe("probe.>").await.unwrap();
    nats_service_tests::processed(&nats.client).await;
    let (other, _) = connect(&nats.server).await;
    let client = ProbeClient::new(other);
    let call = tokio::spawn(client.left().into_future());
    use futures_util::StreamExt as _;
    let request = soon("a request", requests.next()).await.unwrap();
    assert_eq!(request.headers, None);
    call.abort();
    let call = tokio::spawn(
        client
            .left()
            .timeout(Duration::from_millis(1_500))
            .into_future(),
    );
    let request = soon("a request", requests.next()).await.unwrap();
    let headers = request.headers.expect("a header");
    assert_eq!(
        headers.get("Nats-Service-Timeout").unwrap().as_str(),
        "1500"
    );
    call.abort();
}

/// Two accounts: the service's exports its endpoints, the other one imports them.
const ACCOUNTS: &str = r#"
accounts {
  SERVICE {
    users: [{ user: "service", password: "p" }]
    exports: [{ service: "probe.>" }]
  }
  CALLER {
    users: [{ user: "caller", password: "p" }]
    imports: [{ service: { account: SERVICE, subject: "probe.>" }, share: true }]
  }
  QUIET {
    users: [{ user: "quiet", password: "p" }]
    imports: [{ service: { account: SERVICE, subject: "probe.>" } }]
  }
}
"#;

#[tokio::test]
async fn a_caller_of_another_account_is_named_by_the_server_and_cannot_lie() {
    let nats = nats_service_testkit::TestServer::builder()
        .jetstream(false)
        .config(ACCOUNTS)
        .start()
        .await
        .expect("a server");
    let connect = async |user: &str| {
        async_nats::ConnectOptions::with_user_and_password(user.into(), "p".into())
            .name(format!("{user}'s"))
            .connect(nats.url())
            .await
            .expect("a connection")
    };
    let served = connect("service").await;
    #[nats_service(name = "probe", subject = "probe")]
    trait Small {
        async fn look(&self, #[context] ctx: &Context) -> String;
    }
    struct Eye;
    impl Small for Eye {
        async fn look(&self, ctx: &Context) -> String {
            let Some(caller) = ctx.caller() else {
                return "nobody".into();
            };
            format!("{} {:?} {:?}", caller.account, caller.user, caller.name)
        }
    }
    let server = Server::new(served.clone()).serve(SmallServer::new(Eye));
    let _running = soon("a start", server.start()).await.expect("a server");

    let look = SmallClient::new(connect("caller").await);
    assert_eq!(
        soon("an answer", look.look()).await.unwrap(),
        r#"CALLER Some("caller") Some("caller's")"#
    );
    let quiet = SmallClient::new(connect("quiet").await);
    assert_eq!(
        soon("an answer", quiet.look()).await.unwrap(),
        "QUIET None None"
    );
    // What the caller writes there itself is replaced.
    let liar = connect("caller").await;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Request-Info", r#"{"acc":"SYS","user":"root"}"#);
    let reply = liar.request_with_headers("probe.look", headers.clone(), "".into());
    let reply = soon("a reply", reply).await.unwrap();
    let text = String::from_utf8_lossy(&reply.payload).into_owned();
    assert!(text.contains("CALLER") && !text.contains("root"), "{text}");
    // In the service's own account nobody is named, and a lie is not found out: the documentation says so.
    let inside = SmallClient::new(connect("service").await);
    assert_eq!(soon("an answer", inside.look()).await.unwrap(), "nobody");
    let reply = served.request_with_headers("probe.look", headers, "".into());
    let reply = soon("a reply", reply).await.unwrap();
    assert!(String::from_utf8_lossy(&reply.payload).contains("root"));
}
