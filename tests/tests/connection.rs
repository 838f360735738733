//! What the server says to a connection, and what becomes of it: denials that are errors and no time-outs, and subscriptions
//! that lose messages.

use async_nats::client::RequestErrorKind;
use async_nats::{ConnectOptions, Event};
use nats_service::{
    CallError, Code, ConnectionEvent, ConnectionEvents, Denial, Server, StartError, nats_service,
};
use nats_service_testkit::TestServer;
use nats_service_tests::{soon, until};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[nats_service(version = "1.0.0", timeout = "20s")]
trait Greeter {
    async fn hello(&self, name: String) -> String;

    /// Blocks its thread.
    #[endpoint(timeout = "100ms")]
    async fn block(&self, millis: u64) -> u64;

    #[endpoint(max_in_flight = 2, max_waiting = 1)]
    async fn narrow(&self, millis: u64) -> u64;

    #[endpoint(max_in_flight = 1, max_waiting_bytes = 64)]
    async fn thin(&self, text: String) -> usize;
}

#[derive(Clone, Default)]
struct Polite(Arc<AtomicUsize>);

impl Greeter for Polite {
    async fn hello(&self, name: String) -> String {
        name
    }

    async fn block(&self, millis: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(millis));
        millis
    }

    async fn narrow(&self, millis: u64) -> u64 {
        self.0.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        millis
    }

    async fn thin(&self, text: String) -> usize {
        self.0.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        text.len()
    }
}

const USERS: &str = r#"
authorization {
  users: [
    { user: "service", password: "p" }
    { user: "deaf", password: "p", permissions: { subscribe: { deny: ["greeter.narrow"] } } }
    { user: "plain", password: "p", permissions: { publish: ["_INBOX.>"], subscribe: [">"] } }
    { user: "hidden", password: "p", permissions: { subscribe: { deny: ["$SRV.>"] } } }
    { user: "boxless", password: "p", permissions: { subscribe: { deny: ["_INBOX.>"] } } }
    { user: "dumb", password: "p", permissions: { publish: { deny: ["_INBOX.>"] } } }
    { user: "caller", password: "p", permissions: { publish: { deny: ["greeter.hello"] } } }
  ]
}
"#;

async fn server() -> TestServer {
    let builder = TestServer::builder().jetstream(false).config(USERS);
    builder.start().await.expect("a server")
}

fn user(name: &str) -> ConnectOptions {
    ConnectOptions::with_user_and_password(name.into(), "p".into())
}

async fn observed(server: &TestServer, name: &str) -> (async_nats::Client, ConnectionEvents) {
    let events = ConnectionEvents::new();
    let client = events.install(user(name)).connect(server.url()).await;
    (client.expect("a connection"), events)
}

fn serving(client: &async_nats::Client) -> Server {
    Server::new(client.clone()).serve(GreeterServer::new(Polite::default()))
}

async fn refused(server: &TestServer, name: &str) -> Denial {
    let (client, events) = observed(server, name).await;
    let begun = Instant::now();
    let started = soon("an end", serving(&client).with_events(&events).start()).await;
    // It says what is not heard, and which right is missing.
    let text = started.as_ref().unwrap_err().to_string();
    assert!(text.contains("would not work"), "{text}");
    assert!(
        text.contains("permissions.subscribe` of this user"),
        "{text}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{name} was waited for"
    );
    match started {
        Err(StartError::Denied(denial)) => denial,
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test]
async fn a_service_whose_subscription_is_denied_does_not_start() {
    let server = server().await;
    let denial = refused(&server, "deaf").await;
    assert_eq!(denial.subject(), "greeter.narrow");
    assert!(
        denial
            .to_string()
            .contains("in queue group `q`: allow it under `permissions.subscribe`"),
        "{denial}"
    );
    assert!(
        refused(&server, "hidden")
            .await
            .subject()
            .starts_with("$SRV.")
    );
    assert!(
        refused(&server, "boxless")
            .await
            .subject()
            .starts_with("_INBOX.")
    );
    // The one that may everything starts.
    let (client, events) = observed(&server, "service").await;
    let running = serving(&client).with_events(&events).start().await;
    let _running = running.expect("a service");
    assert_eq!(events.denials(), []);
}

#[nats_service(version = "1.0.0")]
trait Notes {
    #[kv_store(bucket = "notes", key = "note.<id>")]
    async fn write(&self, id: u64) -> u64;
}

struct Desk;

impl Notes for Desk {
    async fn write(&self, id: u64) -> u64 {
        id
    }
}

#[tokio::test]
async fn a_service_that_may_not_make_its_bucket_says_so_at_once() {
    const USER: &str = r#"
authorization {
  users: [
    { user: "user", password: "p" }
    { user: "narrow", password: "p", permissions: { publish: { deny: ["$JS.API.STREAM.INFO.KV_notes"] } } }
  ]
}
no_auth_user: user
"#;
    let server = TestServer::builder().config(USER).start().await;
    let server = server.expect("a server");
    let (client, events) = observed(&server, "narrow").await;
    let js = async_nats::jetstream::new(client.clone());
    let notes = Server::new(client)
        .with_jetstream(js)
        .serve(NotesServer::new(Desk));
    let begun = Instant::now();
    let started = soon("an end", notes.with_events(&events).start()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    match started {
        Err(StartError::Denied(denial)) => {
            assert_eq!(denial.subject(), "$JS.API.STREAM.INFO.KV_notes");
            assert!(
                denial
                    .to_string()
                    .contains("allow it under `permissions.publish`")
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Why a start without the events cannot find it out: what could be asked needs rights that a service has no other use for, and a
/// question to the endpoint may be answered by another instance.
#[tokio::test]
async fn without_the_events_a_denied_subscription_cannot_be_told_from_another() {
    let server = server().await;
    let connect = async |name: &str| {
        let client = user(name).connect(server.url()).await;
        client.expect("a connection")
    };
    let (deaf, whole) = (connect("deaf").await, connect("service").await);
    let running = serving(&deaf).start().await;
    let _running = running.expect("nothing says that it is not heard");
    let greeter = GreeterClient::new(deaf.clone());
    let unheard = soon("an end", greeter.narrow(1)).await;
    assert!(
        matches!(unheard, Err(CallError::NoResponders { .. })),
        "{unheard:?}"
    );
    // With an instance that is heard, the same question has an answer: it proves nothing of who asks.
    let second = serving(&whole).start().await;
    let _second = second.expect("a service");
    assert_eq!(soon("an answer", greeter.narrow(1)).await.unwrap(), 1);

    // The server would tell a user's rights, to whoever may ask.
    let narrow = connect("plain").await;
    let ask = |client: &async_nats::Client| {
        let asked = async_nats::Request::new().timeout(Some(Duration::from_millis(500)));
        let client = client.clone();
        async move { client.send_request("$SYS.REQ.USER.INFO", asked).await }
    };
    let told = soon("the rights", ask(&deaf)).await.expect("they are told");
    assert!(String::from_utf8_lossy(&told.payload).contains("greeter.narrow"));
    let silence = soon("silence", ask(&narrow)).await.unwrap_err();
    assert_eq!(silence.kind(), RequestErrorKind::TimedOut);
}

#[tokio::test]
async fn a_call_that_is_denied_fails_at_once_and_says_what_is_missing() {
    let server = server().await;
    let (client, events) = observed(&server, "service").await;
    let running = serving(&client).with_events(&events).start().await;
    let _running = running.expect("a service");

    let (client, events) = observed(&server, "caller").await;
    let greeter = GreeterClient::new(client).with_events(&events);
    for _ in 0..2 {
        let begun = Instant::now();
        let error = soon("an error", greeter.hello("a".to_string()))
            .await
            .unwrap_err();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "waited for its time-out"
        );
        assert_eq!(error.code(), Code::PermissionDenied);
        assert!(
            error.to_string().contains(
                "deny publishing to `greeter.hello`: allow it under `permissions.publish`"
            ),
            "{error}"
        );
    }
    // What is allowed goes on to work.
    assert_eq!(soon("an answer", greeter.narrow(1)).await.unwrap(), 1);

    // Without the helper it is a time-out, which says where to look.
    let blind = user("caller")
        .connect(server.url())
        .await
        .expect("a connection");
    let call = GreeterClient::new(blind)
        .hello("a".to_string())
        .timeout(Duration::from_millis(300));
    let error = soon("an error", call).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("`ConnectionEvents` tells it apart"),
        "{error}"
    );
}

#[tokio::test]
async fn a_caller_that_may_not_have_an_inbox_is_told_so() {
    let server = server().await;
    let (client, events) = observed(&server, "service").await;
    let running = serving(&client).with_events(&events).start().await;
    let _running = running.expect("a service");
    let (client, events) = observed(&server, "boxless").await;
    let greeter = GreeterClient::new(client).with_events(&events);
    for _ in 0..2 {
        let error = soon("an error", greeter.hello("a".to_string()))
            .await
            .unwrap_err();
        let CallError::Denied(Denial::Subscribe { subject, .. }) = &error else {
            panic!("{error:?}");
        };
        assert!(subject.starts_with("_INBOX."), "{subject}");
    }
}

#[tokio::test]
async fn a_denied_reply_is_seen_counted_and_handed_to_the_hook() {
    let server = server().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = ConnectionEvents::new().on_event({
        let seen = seen.clone();
        move |event| seen.lock().unwrap().push(event.clone())
    });
    let client = events
        .install(user("dumb"))
        .connect(server.url())
        .await
        .expect("a connection");
    // Its start sends itself a message, which this user may not.
    let running = soon("an end", serving(&client).with_events(&events).start()).await;
    assert!(
        matches!(running, Err(StartError::Denied(Denial::Publish { .. }))),
        "{running:?}"
    );
    until("it is counted", async || events.counts().denials >= 1).await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], ConnectionEvent::Connected);
    let denied = seen.iter().find_map(|event| match event {
        ConnectionEvent::Denied(denial) => Some(denial.to_string()),
        _ => None,
    });
    let denied = denied.expect("a denial");
    assert!(
        denied.contains("a caller's inbox") && denied.contains("allow_responses"),
        "{denied}"
    );
}

#[tokio::test]
async fn a_subscription_that_loses_messages_is_counted() {
    let server = server().await;
    let events = ConnectionEvents::new();
    let options = user("service").subscription_capacity(1);
    let client = events
        .install(options)
        .connect(server.url())
        .await
        .expect("a connection");
    let _unread = client.subscribe("flood").await.expect("a subscription");
    for _ in 0..100 {
        client
            .publish("flood", "x".into())
            .await
            .expect("a connection");
    }
    until("it is counted", async || events.counts().slow_consumers > 0).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_and_made_again_is_counted() {
    let server = server().await;
    let (client, events) = observed(&server, "service").await;
    until("it is there", async || events.counts().connections == 1).await;
    server.kill().await.expect("a kill");
    until("it is lost", async || events.counts().disconnections == 1).await;
    server.restart().await.expect("a restart");
    until("it is back", async || events.counts().connections == 2).await;
    drop(client);
    // One's own callback can hand events on.
    events.take(Event::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_holds_up_no_other_and_its_caller_is_told_in_its_own_time()
{
    let server = server().await;
    let client = user("service")
        .connect(server.url())
        .await
        .expect("a connection");
    let _running = serving(&client).start().await.expect("a service");
    let other = user("service")
        .connect(server.url())
        .await
        .expect("a connection");
    let greeter = GreeterClient::new(other);
    // The endpoint learns that this handler keeps its thread.
    soon("an answer", greeter.block(5)).await.unwrap();
    let begun = Instant::now();
    let blocked = tokio::spawn(greeter.block(1_000).into_future());
    // Whoever wants something else is served meanwhile.
    for _ in 0..10 {
        soon("an answer", greeter.hello("a".to_string()))
            .await
            .unwrap();
    }
    let blocked = soon("an end", blocked).await.unwrap();
    let error = blocked.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(
        begun.elapsed() < Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn an_endpoint_s_own_bounds_hold_and_not_the_server_s() {
    let server = server().await;
    let client = user("service")
        .connect(server.url())
        .await
        .expect("a connection");
    let hand = Polite::default();
    let running = Server::new(client.clone())
        .max_in_flight(100)
        .serve(GreeterServer::new(hand.clone()));
    let _running = running.start().await.expect("a service");
    let greeter = GreeterClient::new(client);
    // Two run, one waits, the fourth is refused.
    let mut calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(greeter.narrow(500).into_future()))
        .collect();
    until("two run", async || hand.0.load(SeqCst) == 2).await;
    let fourth = soon("a refusal", greeter.narrow(1)).await;
    let fourth = match fourth {
        Err(error) => error,
        // The third was still on its way.
        Ok(_) => soon("a refusal", calls.remove(2))
            .await
            .unwrap()
            .unwrap_err(),
    };
    assert_eq!(fourth.code(), Code::ResourceExhausted, "{fourth}");
    for call in calls {
        assert_eq!(soon("an answer", call).await.unwrap().unwrap(), 500);
    }

    let first = tokio::spawn(greeter.thin("a".to_string()).into_future());
    until("it runs", async || hand.0.load(SeqCst) >= 4).await;
    let large = soon("a refusal", greeter.thin("x".repeat(100)))
        .await
        .unwrap_err();
    assert_eq!(large.code(), Code::ResourceExhausted, "{large}");
    assert_eq!(soon("an answer", first).await.unwrap().unwrap(), 1);
}
