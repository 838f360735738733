//! Objects of 256 MiB, uploaded and downloaded by our store and by the one of async-nats: how fast, and in how much memory.
//!
//! Each transfer is a process of its own on a bucket of its own, so that its peak memory is its own; the source is made up as it
//! is read, and what comes is counted and dropped. Both verify digests.

use super::{Plan, Row, Samples, progress};
use crate::Result;
use crate::args::Args;
use crate::process::{child_line, exit_with_parent};
use crate::report::Goal;
use async_nats::jetstream::object_store::{Config, ObjectMetadata};
use async_nats::jetstream::stream::StorageType;
use nats_service::ObjectStore;
use nats_service_testkit::TestServer;
use serde::{Deserialize, Serialize};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Bytes of the object.
const SIZE: u64 = 256 << 20;
const MIB: f64 = (1 << 20) as f64;
/// A transfer that takes longer hangs.
const TAKES: Duration = Duration::from_secs(120);
const NAME: &str = "an object";

const WHO: [&str; 2] = ["ours", "async-nats"];
/// What is done, on which storage, with which size of reads; and what is promised.
const TRANSFERS: [Transfer; 4] = [
    Transfer::new("upload", "file", 1 << 20, 2.2),
    Transfer::new("upload", "memory", 1 << 20, 2.6),
    Transfer::new("upload", "file", 8 << 10, 8.0),
    Transfer::new("download", "file", 1 << 20, 1.1),
];

#[derive(Debug, Clone, Copy)]
struct Transfer {
    what: &'static str,
    storage: &'static str,
    reads: usize,
    goal: f64,
}

impl Transfer {
    const fn new(what: &'static str, storage: &'static str, reads: usize, goal: f64) -> Self {
        Self {
            what,
            storage,
            reads,
            goal,
        }
    }

    fn name(self) -> String {
        let reads = if self.reads < 1 << 20 {
            format!(" from reads of {} KiB", self.reads >> 10)
        } else {
            String::new()
        };
        format!("{} of 256 MiB, {} store{reads}", self.what, self.storage)
    }
}

/// What a transfer says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    seconds: f64,
    bytes: u64,
    /// Resident memory before it began, and at most, in KiB.
    idle: u64,
    peak: u64,
}

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let mut samples = Samples::new();
    for round in 1..=plan.rounds {
        for (at, transfer) in TRANSFERS.iter().enumerate() {
            for who in WHO {
                progress(format_args!(
                    "object: round {round}, {who}, {}",
                    transfer.name()
                ));
                let server = TestServer::start().await?;
                let js = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
                let storage = match transfer.storage {
                    "memory" => StorageType::Memory,
                    _ => StorageType::File,
                };
                let config = Config {
                    bucket: "o".into(),
                    storage,
                    ..Config::default()
                };
                let bucket = js.create_object_store(config).await?;
                if transfer.what == "download" {
                    // Chunks of one size, whoever reads them.
                    let store = ObjectStore::<()>::bind(js.clone(), "o")?;
                    store.object(NAME)?.put_reader(Made::new(1 << 20)).await?;
                }
                let reads = transfer.reads.to_string();
                let mut arguments = vec!["transfer", who, transfer.what];
                arguments.extend(["--nats", server.url(), "--reads", &reads]);
                let line = child_line(&arguments, TAKES).await?;
                let outcome: Outcome = serde_json::from_str(&line)?;
                if outcome.bytes != SIZE || bucket.info(NAME).await?.size as u64 != SIZE {
                    return Err(format!("{who} lost something: {outcome:?}").into());
                }
                samples.add((who, at), "rate", SIZE as f64 / MIB / outcome.seconds);
                samples.add((who, at), "idle", outcome.idle as f64 / 1024.0);
                samples.add((who, at), "peak", outcome.peak as f64 / 1024.0);
            }
        }
    }
    let mut rows = Vec::new();
    for (at, transfer) in TRANSFERS.iter().enumerate() {
        let [ours, theirs] = WHO.map(|who| (who, at));
        rows.push(Row::new(
            format!("{}, against async-nats, more is better", transfer.name()),
            "MiB/s",
            samples.figure(ours, "rate"),
            samples.figure(theirs, "rate"),
            Goal::RatioAtLeast(transfer.goal),
        ));
        for who in WHO {
            let goal = match who {
                "ours" => Goal::ExcessAtMost(32.0),
                _ => Goal::None,
            };
            rows.push(Row::new(
                format!("{}, {who}: most memory, against idle", transfer.name()),
                "MiB",
                samples.figure((who, at), "peak"),
                samples.figure((who, at), "idle"),
                goal,
            ));
        }
    }
    Ok(rows)
}

/// The child: one transfer, as a line of JSON.
#[tokio::main]
pub(crate) async fn transfer(args: &Args) -> Result<()> {
    exit_with_parent();
    let url: String = args.required("nats")?;
    let reads: usize = args.required("reads")?;
    let client = async_nats::connect(url).await?;
    let js = async_nats::jetstream::new(client);
    // Everything that a first request brings along belongs to the idle process.
    let theirs = js.get_object_store("o").await?;
    let ours = ObjectStore::<()>::bind(js, "o")?.object(NAME)?;
    let (source, mut buffer) = (Made::new(reads), vec![0; 128 << 10]);
    let (idle, began) = (memory("VmRSS:")?, Instant::now());
    let bytes = match (args.word(1)?, args.word(2)?) {
        ("ours", "upload") => ours.put_reader(source).await?.size,
        ("ours", _) => count(ours.reader().await?.ok_or("gone")?, &mut buffer).await?,
        (_, "upload") => {
            let meta = ObjectMetadata {
                name: NAME.into(),
                ..ObjectMetadata::default()
            };
            let mut source = source;
            theirs.put(meta, &mut source).await?.size as u64
        }
        _ => count(theirs.get(NAME).await?, &mut buffer).await?,
    };
    let outcome = Outcome {
        seconds: began.elapsed().as_secs_f64(),
        bytes,
        idle,
        peak: memory("VmHWM:")?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn count(mut object: impl AsyncRead + Unpin, buffer: &mut [u8]) -> Result<u64> {
    let mut bytes = 0;
    loop {
        match object.read(buffer).await? {
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}

/// A line of `/proc/self/status`, in KiB.
pub(super) fn memory(what: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let figure = line.and_then(|line| line.split_whitespace().next());
    Ok(figure.ok_or("no such figure")?.parse()?)
}

/// Gives bytes that repeat, no more than so many at a time.
struct Made {
    pattern: Vec<u8>,
    left: u64,
}

impl Made {
    fn new(reads: usize) -> Self {
        let bytes = (0..reads).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8);
        Self {
            pattern: bytes.collect(),
            left: SIZE,
        }
    }
}

impl AsyncRead for Made {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let length = buffer.remaining().min(self.pattern.len()).min(left);
        buffer.put_slice(&self.pattern[..length]);
        self.left -= length as u64;
        Poll::Ready(Ok(()))
    }
}
