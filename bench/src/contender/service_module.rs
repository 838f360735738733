//! The `service` module of async-nats, used as its documentation shows: one endpoint, one loop.

use super::{Job, ready};
use crate::Result;
use async_nats::service::{ServiceExt, error};
use futures_util::StreamExt;

const SUBJECT: &str = "bench.handle";

pub(super) async fn serve(job: Job) -> Result<()> {
    if job.workload.is_kept() {
        return Err("the service module keeps nothing; `bare` does it by hand".into());
    }
    let service = job.nats.service_builder();
    let service = service.start("bench", "1.0.0").await?;
    let mut endpoint = service.endpoint(SUBJECT).await?;
    ready(&job.nats, SUBJECT).await?;
    while let Some(request) = endpoint.next().await {
        let answer = answer(&job, &request.message.payload);
        request.respond(answer).await?;
    }
    Ok(())
}

fn answer(job: &Job, body: &[u8]) -> std::result::Result<bytes::Bytes, error::Error> {
    let request = serde_json::from_slice(body).map_err(|error| error::Error {
        status: error.to_string(),
        code: 400,
    })?;
    let answer = job.workload.answer(request, job.steps);
    let body = serde_json::to_vec(&answer).map_err(|error| error::Error {
        status: error.to_string(),
        code: 500,
    })?;
    Ok(body.into())
}
