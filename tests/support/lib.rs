//! What the real-server tests share.

pub mod desk;
pub mod foreign;
pub mod guide;
pub mod ledger;
pub mod objects;
pub mod spout;

use async_nats::jetstream;
use nats_service_testkit::{TestServer, TestServerBuilder};
use std::path::Path;
use std::time::Duration;

/// Whether the server that the tests run on is older than this level of the JetStream API: 1 came with nats-server 2.11, and 2 with 2.12.
/// What an older server lacks is told as `tests/tests/versions.rs` promises; a test of the thing itself has nothing to test there.
///
/// # Panics
/// When there is no server.
pub async fn too_old(level: u64) -> bool {
    static LEVEL: tokio::sync::OnceCell<u64> = tokio::sync::OnceCell::const_new();
    let found = LEVEL.get_or_init(async || {
        let server = TestServer::builder().jetstream(false).start().await;
        let server = server.expect("a server");
        let minor = server.version().split('.').nth(1).map(str::parse::<u64>);
        minor
            .expect("a version")
            .expect("a number")
            .saturating_sub(10)
    });
    let found = *found.await;
    if found < level {
        eprintln!(
            "passed over: the server has level {found} of the JetStream API, and this takes {level}"
        );
    }
    found < level
}

/// How long a condition may take to come true on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long one look at it may take: what is asked may never answer, where the next one finds all in order.
const LOOK: Duration = Duration::from_secs(10);

/// The folder of the whole workspace.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace")
}

/// A private server, and a connection to it.
pub struct Nats {
    /// The server; it ends when this is dropped.
    pub server: TestServer,
    /// The connection.
    pub client: async_nats::Client,
    /// Its JetStream context.
    pub js: jetstream::Context,
}

impl Nats {
    /// Starts one.
    pub async fn start() -> Self {
        Self::start_with(|server| server).await
    }

    /// Starts one with other settings.
    pub async fn start_with(change: impl FnOnce(TestServerBuilder) -> TestServerBuilder) -> Self {
        let builder = change(TestServer::builder());
        let server = builder.start().await.expect("a server");
        let (client, js) = connect(&server).await;
        Self { server, client, js }
    }

    /// A KV bucket that keeps ten revisions of a key.
    pub async fn kv_bucket(&self, bucket: &str) {
        let config = jetstream::kv::Config {
            bucket: bucket.to_owned(),
            history: 10,
            ..Default::default()
        };
        self.js.create_key_value(config).await.expect("a bucket");
    }

    /// An object store.
    pub async fn object_bucket(&self, bucket: &str) {
        let config = jetstream::object_store::Config {
            bucket: bucket.to_owned(),
            ..Default::default()
        };
        self.js.create_object_store(config).await.expect("a bucket");
    }

    /// How many consumers a stream has.
    pub async fn consumers(&self, stream: &str) -> usize {
        let stream = self.js.get_stream(stream).await.expect("a stream");
        stream.cached_info().state.consumer_count
    }

    /// How many messages of these subjects a stream holds.
    pub async fn messages(&self, stream: &str, filter: &str) -> usize {
        use futures_util::StreamExt as _;
        let stream = self.js.get_stream(stream).await.expect("a stream");
        let subjects = stream.info_with_subjects(filter).await.expect("subjects");
        subjects
            .map(|subject| subject.expect("a subject").1)
            .fold(0, |sum, count| std::future::ready(sum + count))
            .await
    }
}

/// Another connection to a server.
pub async fn connect(server: &TestServer) -> (async_nats::Client, jetstream::Context) {
    let client = async_nats::connect(server.url())
        .await
        .expect("a connection");
    let js = jetstream::new(client.clone());
    (client, js)
}

/// Returns when the server has processed all that this connection has sent: a flush only says that the bytes have left.
pub async fn processed(client: &async_nats::Client) {
    use futures_util::StreamExt as _;
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.expect("an inbox");
    let sent = client.publish(inbox, "".into()).await;
    sent.expect("a connection");
    soon("the echo", echo.next()).await.expect("an echo");
}

/// Waits until a condition holds; panics, naming it, when it does not in time.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let held = tokio::time::timeout(PATIENCE, async {
        while !matches!(tokio::time::timeout(LOOK, holds()).await, Ok(true)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    held.await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// Awaits something; panics, naming it, when it does not come in time.
pub async fn soon<F: IntoFuture>(what: &str, future: F) -> F::Output {
    let came = tokio::time::timeout(PATIENCE, future.into_future());
    came.await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Every block of every page of the guide is a test.
#[cfg(doctest)]
mod pages {
    macro_rules! pages {
        ($($page:ident)*) => { $(
            #[doc = include_str!(concat!("../../docs/guide/", stringify!($page), ".md"))]
            mod $page {}
        )* };
    }

    pages! {
        buckets
        cache
        client
        codecs
        context
        contract
        documents
        errors
        events
        keys
        objects
        middleware
        observability
        persistence
        reads
        redis
        running
        service
        stores
        streaming
        testing
        transactions
        watch
    }
}
