//! Atomic batches (ADR-50): several messages that are stored in a row, or not at all.
//!
//! Every message carries the batch's id and its own place; the last one commits. The server answers the first, so that a
//! bucket without batches is noticed, and the commit. What it holds of a batch that stays incomplete it forgets after ten
//! seconds. What an answer means is left to those who sent the batch.

use super::error::{StoreError, closed, other};
use super::stream::Stream;
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
};
use async_nats::{HeaderMap, HeaderValue, Message};
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::time::Duration;

/// One message of a batch.
pub(crate) struct Write {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
    /// The last sequence of its subject.
    pub(crate) expected: Option<u64>,
}

/// The answer to a commit: the last message's sequence.
#[derive(serde::Deserialize)]
pub(crate) struct Ack {
    pub(crate) seq: u64,
}

impl Stream {
    /// Sends a batch; what the server says of it, unless it says nothing for so long. The stream has to allow batches: a server that knows
    /// none would store the messages one by one.
    pub(crate) async fn batch(
        &self,
        id: &str,
        writes: impl ExactSizeIterator<Item = Write>,
        timeout: Duration,
    ) -> Result<Option<Message>, StoreError> {
        let client = self.js.client();
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await;
        let mut answers = answers.map_err(|_| closed())?;
        let count = writes.len();
        for (i, write) in writes.enumerate() {
            let Write {
                subject,
                mut headers,
                payload,
                expected,
            } = write;
            headers.insert(NATS_BATCH_ID, id);
            headers.insert(NATS_BATCH_SEQUENCE, HeaderValue::from(i + 1));
            if let Some(expected) = expected {
                headers.insert(
                    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
                    HeaderValue::from(expected),
                );
            }
            let last = i + 1 == count;
            if last {
                headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
            }
            let sent = if last || i == 0 {
                let reply = format!("{inbox}.{}", if last { "commit" } else { "first" });
                client
                    .publish_with_reply_and_headers(subject, reply, headers, payload)
                    .await
            } else {
                client.publish_with_headers(subject, headers, payload).await
            };
            // What was sent already is without a commit, and comes to nothing.
            sent.map_err(|error| other(&error))?;
        }
        let answer = tokio::time::timeout(timeout, async {
            while let Some(message) = answers.next().await {
                let commit = message.subject.ends_with(".commit");
                // The first is answered with nothing when all is well.
                if commit || !message.payload.is_empty() || message.status.is_some() {
                    return Some(message);
                }
            }
            None
        });
        let answer = answer.await;
        let _ = answers.unsubscribe().await;
        Ok(answer.unwrap_or(None))
    }
}
