//! One attempt to commit, and what its answer means.
//!
//! Of the server's refusals some can not come of what is sent here: every message has its number (10175) and no header that a batch
//! may not have (10177, of which `Nats-Expected-Last-Msg-Id` is the only one), the id is 22 characters of 64 (10179), and no
//! message has an id of its own that could be there twice (10201).

use super::error::TransactionError;
use super::{MAX_WRITES, Pending, UnknownOutcome};
use crate::store::batch::{Ack, Write};
use crate::store::error::{Refusal, other};
use crate::store::stream::Stream;
use async_nats::jetstream::response::Response;
use async_nats::{Message, StatusCode};
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

/// Sends the batch and waits for what the server says of it.
pub(super) async fn attempt(
    stream: &Stream,
    writes: &[Pending],
    outcome: UnknownOutcome,
    timeout: Duration,
) -> Result<Attempt, TransactionError> {
    let messages = writes.iter().map(|write| Write {
        subject: write.publish.clone(),
        headers: write.headers.clone(),
        payload: write.value.clone(),
        expected: write.expected,
    });
    match stream.batch(&outcome.batch, messages, timeout).await? {
        Some(message) => read(stream, writes.len(), &message).await,
        None => Err(TransactionError::Unknown(Box::new(outcome))),
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
        Err(error) => return Err(other(&error).into()),
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
