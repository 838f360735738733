//! This project, as its users write it. The one file that knows the shape of our attribute.

use crate::contender::{Job, Workload, ready};
use crate::{Result, work};
use nats_service::{Server, nats_service};
use std::time::Duration;
use work::{Answer, Request};

#[nats_service(version = "1.0.0")]
trait Plain {
    async fn echo(&self, request: Request) -> Answer;
    async fn compute(&self, request: Request) -> Answer;
}

// A trait of its own, so that only this workload needs JetStream, and makes the bucket.
#[nats_service(version = "1.0.0")]
trait Kept {
    #[kv_store(bucket = "bench", key = "user.<id>")]
    async fn persist(&self, request: Request) -> Answer;
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
}

impl Kept for Handler {
    async fn persist(&self, request: Request) -> Answer {
        work::echo(request)
    }
}

pub(super) async fn serve(job: Job) -> Result<()> {
    let handler = Handler { steps: job.steps };
    let server = Server::new(job.nats.clone());
    let running = match job.workload {
        Workload::Persist => {
            let jetstream = async_nats::jetstream::new(job.nats.clone());
            let server = server.with_jetstream(jetstream);
            server.serve(KeptServer::new(handler)).start().await?
        }
        Workload::Echo | Workload::Compute => {
            server.serve(PlainServer::new(handler)).start().await?
        }
    };
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
