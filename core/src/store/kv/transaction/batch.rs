//! One attempt to commit: an atomic batch (ADR-50), as messages and their answer.
//!
//! Every message carries the batch's id and its own place; the last one commits. The server answers the first, so that a
//! bucket without batches is noticed, and the commit. What it holds of a batch that stays incomplete it forgets after ten
//! seconds.
//!
//! Of its other refusals none can come of what is sent here: every message has its number (10175) and no header that a batch
//! may not have (10177, of which `Nats-Expected-Last-Msg-Id` is the only one), the id is 22 characters of 64 (10179), and no
//! message has an id of its own that could be there twice (10201).

use super::error::TransactionError;
use super::{MAX_WRITES, Pending, UnknownOutcome};
use crate::store::error::{Refusal, StoreError};
use crate::store::stream::Stream;
use async_nats::jetstream::response::Response;
use async_nats::{Message, StatusCode};
use futures_util::StreamExt as _;
use std::time::Duration;

const DISABLED: u64 = 10174;
const INCOMPLETE: u64 = 10176;
const TOO_LARGE: u64 = 10199;
const TOO_MANY_AT_ONCE: u64 = 10210;

/// What came of an attempt, besides the errors that end it.
pub(super) enum Attempt {
    /// The revision of the last write.
    Committed(u64),
    /// Some condition does not hold.
    Conflict,
    /// It may end otherwise the next time; nothing was written.
    GivenUp(TransactionError),
}

#[derive(serde::Deserialize)]
struct Ack {
    seq: u64,
}

/// Sends the batch and waits for what the server says of it. `subjects` are those that are published to.
pub(super) async fn attempt(
    stream: &Stream,
    writes: &[Pending],
    outcome: UnknownOutcome,
    timeout: Duration,
) -> Result<Attempt, TransactionError> {
    let client = stream.js.client();
    let inbox = client.new_inbox();
    let closed = || StoreError::Unavailable {
        reason: "the connection is closed".to_owned(),
    };
    let answers = client.subscribe(format!("{inbox}.*")).await;
    let mut answers = answers.map_err(|_| closed())?;
    for (i, write) in writes.iter().enumerate() {
        let mut headers = write.headers.clone();
        headers.insert("Nats-Batch-Id", outcome.batch.as_str());
        headers.insert("Nats-Batch-Sequence", (i + 1).to_string());
        if let Some(expected) = write.expected {
            headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
        }
        let last = i + 1 == writes.len();
        if last {
            headers.insert("Nats-Batch-Commit", "1");
        }
        let (subject, value) = (write.publish.clone(), write.value.clone());
        let sent = if last || i == 0 {
            let reply = format!("{inbox}.{}", if last { "commit" } else { "first" });
            client
                .publish_with_reply_and_headers(subject, reply, headers, value)
                .await
        } else {
            client.publish_with_headers(subject, headers, value).await
        };
        // What was sent already is without a commit, and comes to nothing.
        sent.map_err(|error| crate::store::error::other(&error))?;
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
    match answer {
        Ok(Some(message)) => read(stream, writes.len(), &message).await,
        Ok(None) | Err(_) => Err(TransactionError::Unknown(Box::new(outcome))),
    }
}

async fn read(
    stream: &Stream,
    count: usize,
    message: &Message,
) -> Result<Attempt, TransactionError> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(stream.explain(Refusal::NoResponders).await.into());
    }
    let error = match serde_json::from_slice::<Response<Ack>>(&message.payload) {
        Ok(Response::Ok(ack)) => return Ok(Attempt::Committed(ack.seq)),
        Ok(Response::Err { error }) => error,
        Err(error) => return Err(crate::store::error::other(&error).into()),
    };
    match error.error_code().0 {
        DISABLED => Err(TransactionError::NotAllowed {
            bucket: stream.bucket().to_owned(),
        }),
        INCOMPLETE => Ok(Attempt::GivenUp(TransactionError::Incomplete)),
        TOO_MANY_AT_ONCE => Ok(Attempt::GivenUp(TransactionError::Busy)),
        TOO_LARGE => {
            // "atomic publish batch is too large: 1000"
            let text = error.to_string();
            let said = text.split("too large: ").nth(1).unwrap_or_default();
            let digits = said.split(|c: char| !c.is_ascii_digit()).next();
            let most = digits.and_then(|digits| digits.parse().ok());
            Err(TransactionError::TooMany {
                count,
                most: most.unwrap_or(MAX_WRITES),
            })
        }
        _ => match Refusal::from(&error) {
            Refusal::WrongLastSequence(_) => Ok(Attempt::Conflict),
            refusal => Err(stream.explain(refusal).await.into()),
        },
    }
}
