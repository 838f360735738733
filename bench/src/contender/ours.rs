//! This project, as its users write it. The one file that knows the shape of our attribute.

use crate::contender::{Job, ready};
use crate::{Result, work};
use nats_service::{Server, nats_service};
use std::time::Duration;
use work::{Answer, Request};

#[nats_service(version = "1.0.0")]
trait Plain {
    async fn echo(&self, request: Request) -> Answer;
    async fn compute(&self, request: Request) -> Answer;
    async fn clock(&self, request: Request) -> Answer;
}

// A trait of its own, so that only its workloads need JetStream, and make the bucket.
#[nats_service(version = "1.0.0")]
trait Kept {
    #[kv_store(bucket = "bench", key = "user.<id>")]
    async fn kept_echo(&self, request: Request) -> Answer;
    #[kv_store(bucket = "bench", key = "user.<id>")]
    async fn kept_compute(&self, request: Request) -> Answer;
}

struct Handler {
    steps: u64,
}

impl Plain for Handler {
    async fn echo(&self, request: Request) -> Answer {
        work::echo(request)
    }
    async fn compute(&self, request: Request) -> Answer {
        work::compute(request, self.steps)
    }
    async fn clock(&self, request: Request) -> Answer {
        work::clock(request)
    }
}

impl Kept for Handler {
    async fn kept_echo(&self, request: Request) -> Answer {
        work::echo(request)
    }
    async fn kept_compute(&self, request: Request) -> Answer {
        work::compute(request, self.steps)
    }
}

pub(super) async fn serve(job: Job) -> Result<()> {
    let handler = Handler { steps: job.steps };
    let server = Server::new(job.nats.clone());
    let server = if job.workload.is_kept() {
        let jetstream = async_nats::jetstream::new(job.nats.clone());
        let server = server.with_jetstream(jetstream);
        server.serve(KeptServer::new(handler))
    } else {
        server.serve(PlainServer::new(handler))
    };
    let running = server.start().await?;
    let subject = subject(&job.nats, job.workload.name()).await?;
    ready(&job.nats, &subject).await?;
    // The parent ends this process; until then it serves.
    std::future::pending::<()>().await;
    running.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

/// Asks discovery where the method listens, so that nothing here repeats the rule by which subjects are made.
async fn subject(nats: &async_nats::Client, method: &str) -> Result<String> {
    let info = nats.request("$SRV.INFO", bytes::Bytes::new()).await?;
    let info: serde_json::Value = serde_json::from_slice(&info.payload)?;
    let mut endpoints = info["endpoints"].as_array().into_iter().flatten();
    let endpoint = endpoints.find(|endpoint| endpoint["name"] == method);
    let subject = endpoint.and_then(|endpoint| endpoint["subject"].as_str());
    let subject = subject.ok_or_else(|| format!("discovery does not show {method}: {info}"))?;
    Ok(subject.to_owned())
}
