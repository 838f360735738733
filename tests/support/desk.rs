//! Two services for the tests, and one handler for both: a request says what the handler is to do with it.

use crate::{soon, until};
use async_nats::{Client, HeaderMap, Message};
use bytes::Bytes;
use nats_service::{CallError, Running, Server, ServiceError, nats_service};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// A service without stores.
#[nats_service(version = "1.2.3", description = "a desk", metadata(team = "blue"))]
pub trait Desk {
    /// Does as it is told.
    #[endpoint(timeout = "20s", metadata(cost = "low"))]
    async fn echo(&self, task: Task) -> Result<Task, DeskError>;

    /// The same, beside it.
    async fn other(&self, task: Task) -> Result<Task, DeskError>;

    /// Has little time.
    #[endpoint(timeout = "300ms")]
    async fn hasty(&self, task: Task) -> Result<Task, DeskError>;

    /// Every instance hears of it.
    #[endpoint(queue_group = false)]
    async fn tell_all(&self, task: Task) -> Result<Task, DeskError>;
}

/// A service that keeps its answers, in every way there is.
#[nats_service(version = "1.2.3", timeout = "20s")]
pub trait Keeper {
    /// Reply, then write.
    #[kv_store(bucket = "kept", key = "task.<id>", history = 64)]
    async fn keep(&self, task: Task) -> Result<Task, DeskError>;

    /// Write, then reply.
    #[endpoint(timeout = "2s")]
    #[kv_store(bucket = "sure", key = "task.<id>", write = "before_reply")]
    async fn keep_surely(&self, task: Task) -> Result<Task, DeskError>;

    /// No write at all.
    #[kv_store(bucket = "unkept", key = "task.<id>", write = "never")]
    async fn keep_not(&self, task: Task) -> Result<Task, DeskError>;

    /// Removes what `keep` has kept.
    #[kv_evict(bucket = "kept", key = "task.<id>")]
    async fn forget(&self, task: Task) -> Result<(), DeskError>;

    /// Answers that may be large.
    #[endpoint(timeout = "5s")]
    #[object_store(bucket = "large", key = "task.<id>")]
    async fn render(&self, task: Task) -> Result<Task, DeskError>;
}

/// A service that speaks MessagePack.
#[nats_service(codec = "msgpack", timeout = "20s")]
pub trait Packed {
    /// Does as it is told.
    async fn pack(&self, task: Task) -> Result<Task, DeskError>;

    /// Takes whatever it gets.
    async fn any(&self, value: serde_json::Value) -> serde_json::Value;
}

/// One request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What the key is made of.
    pub id: String,
    /// Comes back.
    #[serde(default)]
    pub text: String,
    /// What is to happen.
    #[serde(default)]
    pub act: Act,
}

/// What a handler is to do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// Answer with the request.
    #[default]
    Answer,
    /// Fail with `text`.
    Fail,
    /// Fail with `text` in an error that the caller does not know.
    FailNewly,
    /// Panic with `text`.
    Panic,
    /// Panic with `text`, after an await.
    PanicLater,
    /// Wait for the gate.
    Hold,
    /// Compute until two handlers do so at once.
    Compute,
    /// Answer with the number of handlers begun so far.
    Count,
    /// Answer with so many bytes.
    Grow(usize),
}

/// What the handlers fail with.
#[derive(Debug, PartialEq, ServiceError)]
pub enum DeskError {
    /// With fields.
    #[service_error(code = AlreadyExists, message = "refused: {text}")]
    Refused {
        /// Of the request.
        text: String,
        /// How many bytes it has.
        bytes: usize,
    },
    /// A variant that an older client does not know.
    #[service_error(code = FailedPrecondition, message = "new: {text}")]
    New {
        /// Of the request.
        text: String,
    },
}

/// The handlers, and what was seen of them.
#[derive(Debug)]
pub struct Worker {
    /// Handlers that were begun.
    pub begun: AtomicUsize,
    /// Handlers that run.
    pub running: AtomicUsize,
    /// The most that ever ran at once.
    pub most: AtomicUsize,
    /// Handlers that ended without an answer.
    pub dropped: AtomicUsize,
    /// Handlers that compute at this moment.
    pub computing: AtomicUsize,
    /// Handlers that saw another one compute beside them.
    pub computed_beside: AtomicUsize,
    /// What `Act::Hold` waits for.
    pub gate: Semaphore,
}

impl Worker {
    /// One whose gate is shut.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            computing: AtomicUsize::new(0),
            computed_beside: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        })
    }

    /// How many handlers were begun.
    pub fn begun(&self) -> usize {
        self.begun.load(SeqCst)
    }

    /// Waits until so many handlers run.
    pub async fn until_running(&self, count: usize) {
        until("the handlers run", async || {
            self.running.load(SeqCst) == count
        })
        .await;
    }

    async fn work(&self, mut task: Task) -> Result<Task, DeskError> {
        self.begun.fetch_add(1, SeqCst);
        let running = self.running.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(running, SeqCst);
        let mut run = Run {
            worker: self,
            ended: false,
        };
        let text = task.text.clone();
        match task.act {
            Act::Answer => {}
            Act::Fail => {
                run.ended = true;
                let bytes = text.len();
                return Err(DeskError::Refused { text, bytes });
            }
            Act::FailNewly => {
                run.ended = true;
                return Err(DeskError::New { text });
            }
            Act::Panic => panic!("{text}"),
            Act::PanicLater => {
                tokio::task::yield_now().await;
                panic!("{text}");
            }
            Act::Hold => self.gate.acquire().await.expect("a gate").forget(),
            Act::Compute => self.compute(),
            Act::Count => task.text = self.begun().to_string(),
            Act::Grow(bytes) => task.text = "x".repeat(bytes),
        }
        run.ended = true;
        Ok(task)
    }

    /// Blocks its thread, as a handler that computes does.
    fn compute(&self) {
        self.computing.fetch_add(1, SeqCst);
        let end = Instant::now() + Duration::from_millis(20);
        while Instant::now() < end {
            if self.computing.load(SeqCst) >= 2 {
                self.computed_beside.fetch_add(1, SeqCst);
                break;
            }
            std::thread::yield_now();
        }
        self.computing.fetch_sub(1, SeqCst);
    }
}

struct Run<'a> {
    worker: &'a Worker,
    ended: bool,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.worker.dropped.fetch_add(1, SeqCst);
        }
        self.worker.running.fetch_sub(1, SeqCst);
    }
}

/// What the servers are given.
#[derive(Debug, Clone)]
pub struct Hand(pub Arc<Worker>);

impl Desk for Hand {
    async fn echo(&self, task: Task) -> Result<Task, DeskError> {
        self.0.work(task).await
    }
    async fn other(&self, task: Task) -> Result<Task, DeskError> {
        self.0.work(task).await
    }
    async fn hasty(&self, task: Task) -> Result<Task, DeskError> {
        self.0.work(task).await
    }
    async fn tell_all(&self, task: Task) -> Result<Task, DeskError> {
        self.0.work(task).await
    }
}

impl Keeper for Hand {
    async fn keep(&self, task: Task) -> Result<Task, DeskError> {
        self.0.work(task).await
    }
    async fn keep_surely(&self, task: Task) -> Result<Task, DeskError> {
        self.0.work(task).await
    }
    async fn keep_not(&self, task: Task) -> Result<Task, DeskError> {
        self.0.work(task).await
    }
    async fn forget(&self, task: Task) -> Result<(), DeskError> {
        self.0.work(task).await.map(drop)
    }
    async fn render(&self, task: Task) -> Result<Task, DeskError> {
        self.0.work(task).await
    }
}

impl Packed for Hand {
    async fn pack(&self, task: Task) -> Result<Task, DeskError> {
        self.0.work(task).await
    }
    async fn any(&self, value: serde_json::Value) -> serde_json::Value {
        value
    }
}

/// A request that is answered as it is.
#[must_use]
pub fn task(id: &str) -> Task {
    doing(id, Act::Answer, "")
}

/// A request that asks for something.
#[must_use]
pub fn doing(id: &str, act: Act, text: &str) -> Task {
    Task {
        id: id.to_owned(),
        text: text.to_owned(),
        act,
    }
}

/// A running desk, on a connection of its own.
pub struct Served {
    /// The service.
    pub running: Running,
    /// Its handlers.
    pub worker: Arc<Worker>,
}

/// Serves the desk.
pub async fn desk(nats: &crate::Nats) -> Served {
    desk_with(nats, |server| server).await
}

/// Serves the desk with other limits.
pub async fn desk_with(nats: &crate::Nats, change: impl FnOnce(Server) -> Server) -> Served {
    let (client, _) = crate::connect(&nats.server).await;
    let worker = Worker::new();
    let server = Server::new(client).serve(DeskServer::new(Hand(worker.clone())));
    let running = change(server).start().await.expect("a desk");
    Served { running, worker }
}

/// Serves the keeper.
pub async fn keeper(nats: &crate::Nats) -> Served {
    keeper_with(nats, |server| server).await
}

/// Serves the keeper with other limits.
pub async fn keeper_with(nats: &crate::Nats, change: impl FnOnce(Server) -> Server) -> Served {
    let (client, js) = crate::connect(&nats.server).await;
    let worker = Worker::new();
    let server = Server::new(client)
        .with_jetstream(js)
        .serve(KeeperServer::new(Hand(worker.clone())));
    let running = change(server).start().await.expect("a keeper");
    Served { running, worker }
}

/// Does something while a hundred calls of the desk are in flight, each of which must be answered; then one more.
pub async fn beside_a_hundred(client: &Client, worker: &Arc<Worker>, bad: impl AsyncFnOnce()) {
    let desk = DeskClient::new(client.clone());
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..100 {
        let call = desk.echo(doing(&i.to_string(), Act::Hold, "beside"));
        calls.spawn(async move { call.await });
    }
    worker.until_running(100).await;
    bad().await;
    worker.gate.add_permits(100);
    while let Some(ended) = soon("a call beside", calls.join_next()).await {
        let answer: Result<Task, CallError<DeskError>> = ended.expect("no panic");
        assert_eq!(answer.expect("an answer").text, "beside");
    }
    let last = soon("one more call", desk.echo(task("last"))).await;
    last.expect("the endpoint lives");
}

/// A request as another language would send it.
pub async fn ask(client: &Client, subject: &str, body: impl Into<Bytes>) -> Message {
    ask_with(client, subject, &[], body).await
}

/// The same, with headers.
pub async fn ask_with(
    client: &Client,
    subject: &str,
    headers: &[(&'static str, &str)],
    body: impl Into<Bytes>,
) -> Message {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let asked = client.request_with_headers(subject.to_owned(), map, body.into());
    soon(subject, asked).await.expect("a reply")
}

/// The code, the text and the whole of an error reply.
#[must_use]
pub fn refusal(message: &Message) -> (u16, String, nats_service::Error) {
    let headers = message.headers.as_ref().expect("headers");
    let number = headers.get("Nats-Service-Error-Code").expect("a number");
    let text = headers.get("Nats-Service-Error").expect("a text");
    let error = serde_json::from_slice(&message.payload).expect("a body");
    let number = number.as_str().parse().expect("a number");
    (number, text.as_str().to_owned(), error)
}

/// What an instance says of an endpoint in `$SRV.STATS`.
pub async fn stats(client: &Client, service: &str, endpoint: &str) -> serde_json::Value {
    let reply = ask(client, &format!("$SRV.STATS.{service}"), "").await;
    let stats: serde_json::Value = serde_json::from_slice(&reply.payload).expect("JSON");
    let endpoints = stats["endpoints"].as_array().expect("endpoints");
    let found = endpoints.iter().find(|one| one["name"] == endpoint);
    found.expect("the endpoint").clone()
}
