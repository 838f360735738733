//! What a user writes without any framework: a queue subscription, and a loop that decodes, answers, encodes and publishes.
//!
//! No errors to the caller, no discovery, no limits, no orderly end: it is the floor, and not a proposal.

use super::{BUCKET, Job, Workload, ready};
use crate::Result;
use async_nats::jetstream::{self, kv};
use futures_util::StreamExt;

const SUBJECT: &str = "bench.handle";

pub(super) async fn serve(job: Job, spawn: bool) -> Result<()> {
    let bucket = match job.workload.is_kept() {
        true => Some(create(&job.nats).await?),
        false => None,
    };
    let queue = "bench".to_owned();
    let mut requests = job.nats.queue_subscribe(SUBJECT, queue).await?;
    ready(&job.nats, SUBJECT).await?;
    while let Some(message) = requests.next().await {
        let (nats, bucket, steps) = (job.nats.clone(), bucket.clone(), job.steps);
        let handled = handle(nats, bucket, job.workload, steps, message);
        if spawn {
            tokio::spawn(async move {
                if let Err(error) = handled.await {
                    eprintln!("bare: {error}");
                }
            });
        } else {
            handled.await?;
        }
    }
    Ok(())
}

async fn handle(
    nats: async_nats::Client,
    bucket: Option<kv::Store>,
    workload: Workload,
    steps: u64,
    message: async_nats::Message,
) -> Result<()> {
    let Some(reply) = message.reply else {
        return Ok(());
    };
    let answer = workload.answer(serde_json::from_slice(&message.payload)?, steps);
    let body = bytes::Bytes::from(serde_json::to_vec(&answer)?);
    nats.publish(reply, body.clone()).await?;
    if let Some(bucket) = bucket {
        // The caller has its answer already; what the write comes to, nobody hears.
        tokio::spawn(async move {
            if let Err(error) = bucket.put(format!("user.{}", answer.id), body).await {
                eprintln!("bare: {error}");
            }
        });
    }
    Ok(())
}

async fn create(nats: &async_nats::Client) -> Result<kv::Store> {
    let config = kv::Config {
        bucket: BUCKET.to_owned(),
        history: 1,
        ..kv::Config::default()
    };
    Ok(jetstream::new(nats.clone())
        .create_key_value(config)
        .await?)
}
