//! A service that streams, for the tests: what is asked of it says how.

use crate::{connect, until};
use futures_util::{Stream, StreamExt as _, stream};
use nats_service::{Running, Server, ServiceError, nats_service};
use nats_service_testkit::TestServer;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A service whose methods stream.
#[nats_service(version = "1.0.0", timeout = "20s")]
pub trait Spout {
    /// Numbers, as it is told.
    async fn count(
        &self,
        ask: Ask,
    ) -> Result<impl Stream<Item = Result<Drop, SpoutError>> + Send, SpoutError>;

    /// Plain items, and no way to fail.
    async fn plain(&self, from: u64, to: u64) -> impl Stream<Item = u64> + Send;

    /// Adds up what comes.
    async fn sum(
        &self,
        start: u64,
        numbers: impl Stream<Item = u64> + Send + Unpin,
    ) -> Result<u64, SpoutError>;

    /// Sends back what comes.
    async fn echo(
        &self,
        drops: impl Stream<Item = Drop> + Send + 'static,
        ask: Ask,
    ) -> Result<impl Stream<Item = Result<Drop, SpoutError>> + Send, SpoutError>;

    /// Begins late, or never.
    #[endpoint(timeout = "300ms")]
    async fn late(&self) -> Result<impl Stream<Item = u64> + Send, SpoutError>;

    /// Answers once.
    async fn unary(&self, number: u64) -> u64;
}

/// The same in MessagePack.
#[nats_service(codec = "msgpack")]
pub trait Packed {
    /// Sends back what comes.
    async fn echo(
        &self,
        drops: impl Stream<Item = Drop> + Send + 'static,
    ) -> impl Stream<Item = Drop> + Send;

    /// Adds up what comes.
    async fn sum(&self, numbers: impl Stream<Item = u64> + Send + 'static) -> u64;
}

/// One item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Drop {
    /// Which one.
    pub number: u64,
    /// As long as it is asked for.
    #[serde(default)]
    pub text: String,
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// The last number.
    #[serde(default)]
    pub to: u64,
    /// How long the text of each is.
    #[serde(default)]
    pub bytes: usize,
    /// What happens.
    #[serde(default)]
    pub act: Act,
}

/// What a stream is to do after its last number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// End.
    #[default]
    End,
    /// Not even begin.
    Refuse,
    /// Fail.
    Fail,
    /// Panic.
    Panic,
    /// Neither end nor go on.
    Stay,
    /// Give one more of so many bytes.
    Grow(usize),
}

/// What streams fail with.
#[derive(Debug, PartialEq, ServiceError)]
pub enum SpoutError {
    /// It ran dry.
    #[service_error(code = OutOfRange, message = "dry after {number}")]
    Dry {
        /// After this one.
        number: u64,
    },
}

/// The handlers, and what was seen of them.
#[derive(Debug)]
pub struct Seen {
    /// Items that handlers' streams gave.
    pub produced: AtomicU64,
    /// Items that handlers read.
    pub read: AtomicU64,
    /// Streams and handlers that run.
    pub running: AtomicUsize,
    /// What `sum` waits for before each number; nothing, unless a test closes it.
    pub gate: Semaphore,
}

impl Seen {
    fn enter(self: &Arc<Self>) -> Inside {
        self.running.fetch_add(1, SeqCst);
        Inside(Arc::clone(self))
    }

    /// How many items were produced.
    pub fn produced(&self) -> u64 {
        self.produced.load(SeqCst)
    }

    /// Waits until so many streams run.
    pub async fn until_running(&self, count: usize) {
        until(&format!("{count} streams run"), async || {
            self.running.load(SeqCst) == count
        })
        .await;
    }
}

struct Inside(Arc<Seen>);

impl std::ops::Drop for Inside {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

/// What the servers are given.
#[derive(Debug, Clone)]
pub struct Well(pub Arc<Seen>);

impl Well {
    /// One whose gate is open.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Seen {
            produced: AtomicU64::new(0),
            read: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }))
    }

    fn drops(&self, ask: Ask) -> impl Stream<Item = Result<Drop, SpoutError>> + Send + use<> {
        let (inside, seen) = (self.0.enter(), Arc::clone(&self.0));
        let Ask { to, bytes, act } = ask;
        let drop = move |number, bytes| Drop {
            number,
            text: "x".repeat(bytes),
        };
        let numbers = stream::iter(1..=to).map(move |number| {
            seen.produced.fetch_add(1, SeqCst);
            Ok(drop(number, bytes))
        });
        let last = match act {
            Act::End | Act::Refuse => stream::empty().boxed(),
            Act::Fail => stream::iter([Err(SpoutError::Dry { number: to })]).boxed(),
            Act::Panic => stream::poll_fn(|_| panic!("a secret")).boxed(),
            Act::Stay => stream::pending().boxed(),
            Act::Grow(bytes) => stream::iter([Ok(drop(to + 1, bytes))]).boxed(),
        };
        numbers.chain(last).inspect(move |_| {
            let _ = &inside;
        })
    }
}

impl Default for Well {
    fn default() -> Self {
        Self::new()
    }
}

impl Spout for Well {
    async fn count(
        &self,
        ask: Ask,
    ) -> Result<impl Stream<Item = Result<Drop, SpoutError>> + Send, SpoutError> {
        match ask.act {
            Act::Refuse => Err(SpoutError::Dry { number: 0 }),
            _ => Ok(self.drops(ask)),
        }
    }

    async fn plain(&self, from: u64, to: u64) -> impl Stream<Item = u64> + Send {
        // It may borrow from the service.
        stream::iter(from..=to).inspect(|_| {
            self.0.produced.fetch_add(1, SeqCst);
        })
    }

    async fn sum(
        &self,
        start: u64,
        mut numbers: impl Stream<Item = u64> + Send + Unpin,
    ) -> Result<u64, SpoutError> {
        let _inside = self.0.enter();
        let mut sum = start;
        while let Some(number) = numbers.next().await {
            if number == u64::MAX {
                return Err(SpoutError::Dry { number: sum });
            }
            let _turn = self.0.gate.acquire().await.expect("a gate");
            self.0.read.fetch_add(1, SeqCst);
            sum += number;
        }
        Ok(sum)
    }

    async fn echo(
        &self,
        drops: impl Stream<Item = Drop> + Send + 'static,
        ask: Ask,
    ) -> Result<impl Stream<Item = Result<Drop, SpoutError>> + Send, SpoutError> {
        if ask.act == Act::Refuse {
            return Err(SpoutError::Dry { number: 0 });
        }
        let inside = self.0.enter();
        Ok(drops.map(move |drop| {
            let _ = &inside;
            Ok(drop)
        }))
    }

    async fn late(&self) -> Result<impl Stream<Item = u64> + Send, SpoutError> {
        let _inside = self.0.enter();
        std::future::pending::<()>().await;
        Ok(stream::empty())
    }

    async fn unary(&self, number: u64) -> u64 {
        number
    }
}

impl Packed for Well {
    async fn echo(
        &self,
        drops: impl Stream<Item = Drop> + Send + 'static,
    ) -> impl Stream<Item = Drop> + Send {
        drops
    }

    async fn sum(&self, numbers: impl Stream<Item = u64> + Send + 'static) -> u64 {
        numbers
            .fold(0, |sum, number| std::future::ready(sum + number))
            .await
    }
}

/// A running spout, on a connection of its own.
pub struct Served {
    /// The service.
    pub running: Running,
    /// What is seen of its handlers.
    pub seen: Arc<Seen>,
}

/// Serves the spout.
pub async fn spout(server: &TestServer) -> Served {
    spout_with(server, |server| server).await
}

/// Serves the spout with other limits.
pub async fn spout_with(server: &TestServer, change: impl FnOnce(Server) -> Server) -> Served {
    let (client, _) = connect(server).await;
    serve_on(client, change).await
}

/// Serves the spout on this connection.
pub async fn serve_on(client: async_nats::Client, change: impl FnOnce(Server) -> Server) -> Served {
    let well = Well::new();
    let seen = Arc::clone(&well.0);
    let server = Server::new(client)
        .serve(SpoutServer::new(well.clone()))
        .serve(PackedServer::new(well));
    let running = change(server).start().await.expect("a spout");
    Served { running, seen }
}

/// So many numbers.
#[must_use]
pub fn to(to: u64) -> Ask {
    doing(to, Act::End)
}

/// So many numbers, and then this.
#[must_use]
pub fn doing(to: u64, act: Act) -> Ask {
    Ask {
        to,
        act,
        ..Ask::default()
    }
}

/// A short time between two signs of life, so that tests of what is lost are short, too.
pub const BEAT: Duration = Duration::from_millis(200);
