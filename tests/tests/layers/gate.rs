//! A service for layers to stand around.

use futures_util::{Stream, stream};
use nats_service::layer::{BoxError, Request, Response};
use nats_service::{Context, Error, Running, Server, message, nats_service};
use nats_service_tests::{Nats, connect};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::sync::Semaphore;
use tower::util::{MapRequestLayer, MapResultLayer};

#[nats_service]
pub(crate) trait Gate {
    /// Says what it was told by layers.
    async fn pass(&self, #[context] ctx: &Context, text: String) -> Result<String, Error>;

    /// Waits for the gate.
    #[endpoint(timeout = "20s")]
    async fn hold(&self) -> Result<u32, Error>;

    /// Kept after the reply.
    #[kv_store(bucket = "words", key = "word.<id>")]
    async fn keep(&self, id: u32, text: String) -> Result<Word, Error>;

    /// Looked up first.
    #[kv_cache(bucket = "cached", key = "word.<id>", ttl = "1h")]
    async fn look(&self, id: u32) -> Result<Word, Error>;

    /// Letters of what it was told by layers.
    async fn spell(
        &self,
        #[context] ctx: &Context,
    ) -> Result<impl Stream<Item = char> + Send, Error>;

    /// Of every instance.
    #[endpoint(queue_group = false)]
    async fn all(&self, #[context] ctx: &Context) -> String;
}

#[message]
#[derive(Debug, PartialEq)]
pub(crate) struct Word {
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) gate: Semaphore,
    pub(crate) running: AtomicUsize,
    pub(crate) most: AtomicUsize,
    pub(crate) begun: AtomicUsize,
}

#[derive(Debug, Clone)]
pub(crate) struct Hand(pub(crate) Arc<Keeper>);

struct Run<'a>(&'a AtomicUsize);

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// What a layer has found out.
#[derive(Debug, Clone)]
pub(crate) struct User(pub(crate) String);

impl Gate for Hand {
    async fn pass(&self, ctx: &Context, text: String) -> Result<String, Error> {
        self.0.begun.fetch_add(1, SeqCst);
        let user = ctx.get::<User>().map_or("nobody", |user| &user.0);
        let seen = ctx.header("X-Seen").unwrap_or("-");
        ctx.set_header("X-Handler", "was here")
            .map_err(|e| Error::internal(e.to_string()))?;
        match text.as_str() {
            "fail" => Err(Error::not_found("no such word")),
            "panic" => panic!("secret"),
            _ => Ok(format!("{text} {user} {seen}")),
        }
    }

    async fn hold(&self) -> Result<u32, Error> {
        let running = self.0.running.fetch_add(1, SeqCst) + 1;
        let _run = Run(&self.0.running);
        self.0.most.fetch_max(running, SeqCst);
        self.0.gate.acquire().await.expect("a gate").forget();
        Ok(7)
    }

    async fn keep(&self, _id: u32, text: String) -> Result<Word, Error> {
        Ok(Word { text })
    }

    async fn look(&self, _id: u32) -> Result<Word, Error> {
        self.0.begun.fetch_add(1, SeqCst);
        Ok(Word {
            text: "looked".into(),
        })
    }

    async fn spell(&self, ctx: &Context) -> Result<impl Stream<Item = char> + Send, Error> {
        self.0.begun.fetch_add(1, SeqCst);
        let user = ctx
            .get::<User>()
            .map_or(String::new(), |user| user.0.clone());
        Ok(stream::iter(user.chars().collect::<Vec<_>>()))
    }

    async fn all(&self, ctx: &Context) -> String {
        ctx.header("X-Seen").unwrap_or("-").to_owned()
    }
}

pub(crate) fn hand() -> Hand {
    Hand(Arc::new(Keeper {
        gate: Semaphore::new(0),
        running: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        begun: AtomicUsize::new(0),
    }))
}

/// A gate that runs, on a connection of its own, with what `change` puts around it.
pub(crate) async fn gate(
    nats: &Nats,
    change: impl FnOnce(Server) -> Server,
) -> (Running, Arc<Keeper>, GateClient) {
    let (connection, js) = connect(&nats.server).await;
    let hand = hand();
    let server = Server::new(connection)
        .with_jetstream(js)
        .serve(GateServer::new(hand.clone()));
    let running = change(server).start().await.expect("a gate");
    let client = GateClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    (running, hand.0, client)
}

/// Adds to a header on the way in.
pub(crate) fn mark(
    name: &'static str,
) -> MapRequestLayer<impl Fn(Request) -> Request + Clone + Send + Sync + 'static> {
    MapRequestLayer::new(move |mut request: Request| {
        let seen = request
            .header("X-Seen")
            .map_or(name.to_owned(), |seen| format!("{seen}>{name}"));
        request.headers.insert("X-Seen", seen.as_str());
        request
    })
}

/// Changes what comes back.
pub(crate) fn change<F>(with: F) -> MapResultLayer<F>
where
    F: Fn(Result<Response, BoxError>) -> Result<Response, BoxError> + Clone + Send + Sync + 'static,
{
    MapResultLayer::new(with)
}
