//! The roles of streams: a service whose inboxes have a name of their own, and callers that may speak to these and to no others.

use super::{server, user};
use async_nats::ConnectOptions;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nats_service::{ConnectionEvents, Denial, Server, Stream, nats_service};
use nats_service_testkit::TestServer;
use nats_service_tests::{PATIENCE, soon, until};

/// More than two windows each way, so that nothing ends without a word of its reader's.
const MANY: u64 = 3_000;

#[nats_service(version = "1.0.0", name = "notes", subject = "notes")]
trait Flows {
    async fn count(&self, to: u64) -> impl Stream<Item = u64> + Send;

    async fn sum(&self, numbers: impl Stream<Item = u64> + Send) -> u64;

    async fn echo(
        &self,
        numbers: impl Stream<Item = u64> + Send + 'static,
    ) -> impl Stream<Item = u64> + Send;
}

struct Well;

impl Flows for Well {
    async fn count(&self, to: u64) -> impl Stream<Item = u64> + Send {
        stream::iter(1..=to)
    }

    async fn sum(&self, numbers: impl Stream<Item = u64> + Send) -> u64 {
        numbers
            .fold(0, |sum, number| std::future::ready(sum + number))
            .await
    }

    async fn echo(
        &self,
        numbers: impl Stream<Item = u64> + Send + 'static,
    ) -> impl Stream<Item = u64> + Send {
        numbers
    }
}

async fn connect(
    server: &TestServer,
    name: &str,
    inbox: &str,
) -> (async_nats::Client, ConnectionEvents) {
    let events = ConnectionEvents::new();
    let options = ConnectOptions::with_user_and_password(name.into(), "p".into());
    let options = events.install(options).custom_inbox_prefix(inbox);
    let client = options.connect(server.url()).await;
    (client.expect("a connection"), events)
}

#[tokio::test]
async fn a_service_that_streams_and_its_callers_need_no_more_and_reach_no_other_inbox() {
    let server = server(&[
        user("service", &["A service", "A service whose methods stream"]),
        user("caller", &["A client", "A caller of methods that stream"]),
    ])
    .await;
    let (client, heard) = connect(&server, "service", "_INBOX_notes").await;
    let running = Server::new(client).with_events(&heard);
    let running = running.serve(FlowsServer::new(Well)).start().await;
    let running = running.expect("a service");
    let (client, denied) = connect(&server, "caller", "_INBOX").await;
    let flows = FlowsClient::new(client.clone());

    let numbers = soon("a stream", flows.count(MANY)).await.expect("answers");
    let numbers: Vec<u64> = soon("all", numbers.try_collect()).await.expect("numbers");
    assert!(numbers.into_iter().eq(1..=MANY));
    let sum = soon("a sum", flows.sum(stream::iter(1..=MANY))).await;
    assert_eq!(sum.expect("an answer"), MANY * (MANY + 1) / 2);
    let echo = flows.echo(stream::iter(1..=MANY));
    let echo = soon("a stream", echo).await.expect("answers");
    let echo: Vec<u64> = soon("all", echo.try_collect()).await.expect("numbers");
    assert!(echo.into_iter().eq(1..=MANY));
    assert_eq!((heard.denials(), denied.denials()), (vec![], vec![]));

    // What a forged stream would ask of a caller, it may not do.
    let foreign = "_INBOX.of.somebody";
    let sent = client.publish(foreign, "x".into()).await;
    sent.expect("a connection");
    until("it is denied", async || !denied.denials().is_empty()).await;
    let publish = |subject: &str| Denial::Publish {
        subject: subject.into(),
    };
    assert_eq!(denied.denials(), [publish(foreign)]);
    let report = running.shutdown(PATIENCE).await.expect("all has ended");
    assert_eq!(report.cut_streams, 0);
}

/// Without that right the first window is all that comes: a caller that sees nothing of it should look at its events.
#[tokio::test]
async fn a_caller_without_the_right_is_told_by_its_events() {
    let server = server(&[
        user("service", &["A service", "A service whose methods stream"]),
        user("caller", &["A client"]),
    ])
    .await;
    let (client, _) = connect(&server, "service", "_INBOX_notes").await;
    let service = Server::new(client).serve(FlowsServer::new(Well));
    let _running = service.start().await.expect("a service");
    let (client, denied) = connect(&server, "caller", "_INBOX").await;
    let flows = FlowsClient::new(client);
    let mut numbers = soon("a stream", flows.count(MANY)).await.expect("answers");
    assert_eq!(soon("an item", numbers.next()).await.unwrap().unwrap(), 1);
    until("it is denied", async || !denied.denials().is_empty()).await;
    assert!(
        denied.denials()[0].subject().starts_with("_INBOX_notes."),
        "{denied:?}"
    );
}
