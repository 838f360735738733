//! A server that runs, and how it stops: it takes no more requests, ends what it has taken, sees its replies out, drains
//! the writers, and says what it could not do.

use super::drain;
use super::endpoint::Stop;
use super::streaming::Streams;
use crate::store::persist::Writers;
use crate::store::{FailedWrite, WriterStats};
use crate::wire::moment::bounded;
use async_nats::Client;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A server that serves. Keep it: dropping it stops the intake at once, and nothing is drained.
#[derive(Debug)]
#[must_use = "dropping it stops the service"]
pub struct Running {
    pub(super) client: Client,
    pub(super) stop: Stop,
    pub(super) streams: Arc<Streams>,
    pub(super) endpoints: JoinSet<()>,
    pub(super) discovery: JoinSet<()>,
    /// `None` without JetStream.
    pub(super) writers: Option<Writers>,
}

/// What a shutdown left undone: nothing, when it comes as `Ok`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Answers that were written while stopping.
    pub written: u64,
    /// Answers whose callers were told of success and which are not, or perhaps not, in their bucket. Put them elsewhere.
    pub unwritten: Vec<FailedWrite>,
    /// What the writers of the buckets came to, over their whole life.
    pub writers: Vec<WriterStats>,
    /// Endpoints whose requests had not ended in time; those requests were answered with `Unavailable`.
    pub cut_short: usize,
    /// Streams that had not ended in time; their callers were told `Unavailable`.
    pub cut_streams: usize,
}

/// Time was up before everything had been done.
#[derive(Debug, thiserror::Error)]
#[error(
    "the deadline of the shutdown passed: {} answers are not stored, {} endpoints were cut short, {} streams among them",
    .0.unwritten.len(),
    .0.cut_short,
    .0.cut_streams
)]
pub struct ShutdownError(pub ShutdownReport);

impl Running {
    /// What the writers of the buckets are doing: how much waits, how much was written, how old the oldest is.
    ///
    /// ```no_run
    /// # fn look(running: &nats_service::Running) {
    /// for writer in running.writer_stats() {
    ///     println!("{}: {} queued, {} in flight", writer.bucket, writer.queued, writer.in_flight);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn writer_stats(&self) -> Vec<WriterStats> {
        self.writers
            .as_ref()
            .map(Writers::stats)
            .unwrap_or_default()
    }

    /// Stops: no new requests, then an end to those that were taken, then their replies, then the pending writes.
    ///
    /// Takes `deadline` at most, plus what it takes to tell the callers of cut requests.
    ///
    /// # Errors
    /// When the deadline passed first; the error says what is left, values and all.
    pub async fn shutdown(self, deadline: Duration) -> Result<ShutdownReport, ShutdownError> {
        self.shutting_down(deadline).await
    }

    /// Boxed, so that it and whatever it polls is compiled with this crate.
    fn shutting_down(
        self,
        deadline: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<ShutdownReport, ShutdownError>> + Send>> {
        Box::pin(self.shut_down(deadline))
    }

    async fn shut_down(mut self, deadline: Duration) -> Result<ShutdownReport, ShutdownError> {
        let deadline = Instant::now() + bounded(deadline);
        self.stop.intake.cancel();
        let (mut cut_short, mut cut_streams) = (0, 0);
        let in_time = tokio::time::timeout_at(deadline.into(), async {
            while self.endpoints.join_next().await.is_some() {}
        });
        if in_time.await.is_err() {
            cut_short = self.endpoints.len();
            cut_streams = self.streams.open();
            self.stop.running.cancel();
            // Cancelled handlers reply at once; a handler that blocks its thread cannot be waited for.
            let _ = tokio::time::timeout(Duration::from_millis(250), async {
                while self.endpoints.join_next().await.is_some() {}
            })
            .await;
        }
        // Discovery answers until the end, so that an operator sees the instance for as long as it works.
        self.discovery.shutdown().await;
        // Replies that are not with the server yet would go with the connection.
        if !drain::settled(&self.client).await {
            tracing::warn!("the last replies may not have been sent");
        }
        let drained = match &self.writers {
            Some(writers) => writers.drain(deadline.into()).await,
            None => Default::default(),
        };
        let report = ShutdownReport {
            written: drained.written,
            unwritten: drained.unwritten,
            writers: self.writer_stats(),
            cut_short,
            cut_streams,
        };
        if report.unwritten.is_empty() && report.cut_short == 0 {
            Ok(report)
        } else {
            Err(ShutdownError(report))
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.intake.cancel();
        self.stop.running.cancel();
    }
}
