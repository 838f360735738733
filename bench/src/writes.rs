//! The ways to write many values into one bucket, each as its users would write it, in a process of its own:
//! `writes <way> --nats URL --storage file|memory --count N`.

use crate::Result;
use crate::args::Args;
use crate::process::{exit_with_parent, own_cpu_time};
use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Config, Store};
use async_nats::jetstream::stream::StorageType;
use futures_util::StreamExt;
use nats_service::{BucketSettings, KvStore, Storage};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

const BUCKET: &str = "writes";
/// 126 letters, and the quotes of JSON.
const VALUE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// The writer of this project.
    Ours,
    /// `kv.put`, one after the other.
    Awaited,
    /// `kv.put`, 1,024 at once.
    AtOnce,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Awaited, Self::AtOnce];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Awaited => "awaited",
            Self::AtOnce => "at-once",
        }
    }
}

/// What a way came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) writes: u64,
    pub(crate) stored: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

#[tokio::main]
pub(crate) async fn run(args: &Args) -> Result<()> {
    let name = args.word(1)?;
    let way = Way::ALL.into_iter().find(|way| way.name() == name);
    let way = way.ok_or("no such way")?;
    let count: u64 = args.required("count")?;
    exit_with_parent();
    let nats = async_nats::connect(args.required::<String>("nats")?).await?;
    let js = async_nats::jetstream::new(nats);
    let in_memory = args.required::<String>("storage")? == "memory";
    let kv = make(&js, way, in_memory).await?;
    // What is made at the first write of all is not what is measured.
    write(&js, &kv, way, "warm", 2_000.min(count)).await?;
    let (before, start) = (own_cpu_time()?, Instant::now());
    write(&js, &kv, way, "many", count).await?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = (own_cpu_time()? - before).as_secs_f64();
    let stored = js.get_stream(format!("KV_{BUCKET}")).await?;
    let stored = stored.get_info().await?.state.messages - 2_000.min(count);
    let outcome = Outcome {
        writes: count,
        stored,
        seconds,
        cpu_seconds,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    // Not by returning: the runtime would wait for the input to end.
    std::process::exit(0)
}

/// The bucket, made as its users would make it.
async fn make(js: &Context, way: Way, in_memory: bool) -> Result<Store> {
    if way == Way::Ours {
        let storage = if in_memory {
            Storage::Memory
        } else {
            Storage::File
        };
        let settings = BucketSettings::new(BUCKET).storage(storage);
        KvStore::<String>::create(js.clone(), settings).await?;
        return Ok(js.get_key_value(BUCKET).await?);
    }
    let config = Config {
        bucket: BUCKET.to_owned(),
        history: 1,
        storage: match in_memory {
            true => StorageType::Memory,
            false => StorageType::File,
        },
        ..Default::default()
    };
    Ok(js.create_key_value(config).await?)
}

/// Returns when all of them are stored.
async fn write(js: &Context, kv: &Store, way: Way, prefix: &str, count: u64) -> Result<()> {
    match way {
        Way::Ours => {
            let value = VALUE.to_owned();
            let writer = KvStore::<String>::bind(js.clone(), BUCKET)?
                .writer()
                .await?;
            for number in 0..count {
                writer.put(format!("{prefix}.{number}"), &value).await?;
            }
            let report = writer.drain(PATIENCE).await;
            match report.unwritten.first() {
                Some(failed) => Err(failed.error.clone().into()),
                None => Ok(()),
            }
        }
        Way::Awaited => {
            for number in 0..count {
                put(kv, prefix, number).await?;
            }
            Ok(())
        }
        Way::AtOnce => {
            let puts = futures_util::stream::iter(0..count).map(|number| put(kv, prefix, number));
            let mut puts = puts.buffer_unordered(1024);
            while let Some(outcome) = puts.next().await {
                outcome?;
            }
            Ok(())
        }
    }
}

async fn put(kv: &Store, prefix: &str, number: u64) -> Result<()> {
    let value = serde_json::to_vec(VALUE)?;
    kv.put(format!("{prefix}.{number}"), value.into()).await?;
    Ok(())
}
