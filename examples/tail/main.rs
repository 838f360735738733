//! The tail of a log, as a stream: what was written, then what is being written, for as long as somebody reads.
//!
//! `cargo run --example tail` runs alone, on a private nats-server. A writer sends lines as a stream of requests; two readers
//! follow the log, of which one stops, and with it its handler; the other filters what it is sent, by a stream in both
//! directions.

use futures_util::{StreamExt as _, stream};
use nats_service::{Code, Server, ServiceError, Stream, async_nats, message, nats_service};
use nats_service_testkit::TestServer;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// A log that is kept in memory.
#[nats_service(version = "1.0.0")]
trait Log {
    /// Appends lines as they come, and says how many there were.
    async fn append(&self, lines: impl Stream<Item = String> + Send) -> u64;

    /// The lines from this number on, and then those that come.
    async fn tail(
        &self,
        from: u64,
    ) -> Result<impl Stream<Item = Result<Line, LogError>> + Send, LogError>;

    /// Answers each word with how many lines hold it, as soon as it is asked.
    async fn search(
        &self,
        words: impl Stream<Item = String> + Send + 'static,
    ) -> impl Stream<Item = usize> + Send;
}

/// One line.
#[message]
#[derive(Debug, PartialEq)]
struct Line {
    /// From 0 on.
    number: u64,
    text: String,
}

/// What goes wrong.
#[derive(Debug, PartialEq, ServiceError)]
enum LogError {
    /// Nobody has written so much yet.
    #[service_error(code = OutOfRange, message = "the log has {lines} lines")]
    Ahead {
        /// How many there are.
        lines: u64,
    },
}

/// The lines, and a sign that there are more of them.
#[derive(Clone)]
struct Memory {
    lines: Arc<Mutex<Vec<String>>>,
    grown: Arc<watch::Sender<()>>,
}

impl Memory {
    fn line(&self, number: u64) -> Option<Line> {
        let lines = self.lines.lock().expect("no panic");
        let text = lines.get(usize::try_from(number).ok()?)?.clone();
        Some(Line { number, text })
    }

    fn len(&self) -> u64 {
        self.lines.lock().expect("no panic").len() as u64
    }
}

impl Log for Memory {
    async fn append(&self, lines: impl Stream<Item = String> + Send) -> u64 {
        let mut lines = std::pin::pin!(lines);
        let mut appended = 0;
        while let Some(line) = lines.next().await {
            self.lines.lock().expect("no panic").push(line);
            self.grown.send_replace(());
            appended += 1;
        }
        appended
    }

    async fn tail(
        &self,
        from: u64,
    ) -> Result<impl Stream<Item = Result<Line, LogError>> + Send, LogError> {
        let lines = self.len();
        if from > lines {
            return Err(LogError::Ahead { lines });
        }
        // It is polled only as fast as its reader reads, and dropped when the reader is gone.
        let follow = Follow {
            number: from,
            grown: self.grown.subscribe(),
        };
        Ok(stream::unfold(follow, async |mut at| {
            loop {
                if let Some(line) = self.line(at.number) {
                    at.number += 1;
                    return Some((Ok(line), at));
                }
                at.grown.changed().await.ok()?;
            }
        }))
    }

    async fn search(
        &self,
        words: impl Stream<Item = String> + Send + 'static,
    ) -> impl Stream<Item = usize> + Send {
        words.map(|word| {
            let lines = self.lines.lock().expect("no panic");
            lines.iter().filter(|line| line.contains(&word)).count()
        })
    }
}

/// Where a reader is.
struct Follow {
    number: u64,
    grown: watch::Receiver<()>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = TestServer::start().await?;
    let nats = async_nats::connect(server.url()).await?;
    let memory = Memory {
        lines: Arc::default(),
        grown: Arc::new(watch::Sender::new(())),
    };
    let running = Server::new(nats)
        .serve(LogServer::new(memory.clone()))
        .start()
        .await?;
    let log = LogClient::new(async_nats::connect(server.url()).await?);

    let lines = stream::iter(["one fish", "two fish"]).map(str::to_owned);
    println!("appended {} lines", log.append(lines).await?);

    let too_far = log.tail(99).await.expect_err("nobody wrote so much");
    println!("tail from 99: {too_far}");
    assert_eq!(too_far.code(), Code::OutOfRange);

    let mut tail = log.tail(0).await?;
    for _ in 0..2 {
        let line = tail.next().await.ok_or("the log ended")??;
        println!("{}: {}", line.number, line.text);
    }
    // Nothing more is there: this one is sent while the reader waits.
    let writer = log.append(stream::iter(["red fish".to_owned()]));
    let (line, appended) = tokio::join!(tail.next(), writer);
    let (line, appended) = (line.ok_or("the log ended")??, appended?);
    println!(
        "{}: {} ({appended} appended meanwhile)",
        line.number, line.text
    );

    // Whoever reads no more drops the stream, and the handler's is dropped with it.
    drop(tail);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while memory.grown.receiver_count() > 0 {
        if tokio::time::Instant::now() > deadline {
            return Err("the handler goes on".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("nobody follows the log any more");

    let words = stream::iter(["fish", "red", "blue"]).map(str::to_owned);
    let found: Vec<_> = log.search(words).await?.collect().await;
    println!("found: {found:?}");
    assert!(matches!(found[..], [Ok(3), Ok(1), Ok(0)]));

    running.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
