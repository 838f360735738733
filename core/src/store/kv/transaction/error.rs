//! What keeps a transaction from its end, and what is known then.

use super::UnknownOutcome;
use crate::store::error::StoreError;
use std::fmt::Write as _;

/// A transaction was not committed, or nobody knows.
///
/// ```
/// use nats_service::{TransactionConflict, TransactionError};
/// # fn example(error: TransactionError) {
/// if let TransactionError::Conflict { conflicts } = &error {
///     for TransactionConflict { key, expected, current, .. } in conflicts {
///         eprintln!("{key} is at {current:?} and not at {expected}");
///     }
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Some keys are not as the transaction wants them. Nothing was written.
    #[error("nothing was written, since others were faster: {}; read again and repeat", list(.conflicts))]
    Conflict {
        /// Each key with the revision that is there now. Empty where nobody could tell.
        conflicts: Vec<TransactionConflict>,
    },
    /// The bucket takes no batches. Nothing was written.
    #[error(
        "bucket `{bucket}` takes no transactions: say `atomic = true` in its attribute, with `provision = \"update\"` for one that is there, or `nats stream edit KV_{bucket} --allow-batch`"
    )]
    NotAllowed {
        /// The bucket.
        bucket: String,
    },
    /// The server knows no batches. Nothing was written.
    #[error(
        "the server has API level {level}, and transactions need level 2: update nats-server to 2.12 or later"
    )]
    ServerTooOld {
        /// What it said; 0 for one that says nothing of it.
        level: u64,
    },
    /// A key of another bucket. Nothing was written.
    #[error(
        "`{key}` is a key of bucket `{bucket}`, and this transaction is one of bucket `{wanted}`: a transaction is of one bucket"
    )]
    OtherBucket {
        /// The key.
        key: String,
        /// Its bucket.
        bucket: String,
        /// The transaction's.
        wanted: String,
    },
    /// A key stands in it more than once. Nothing was written.
    #[error(
        "`{key}` is written twice in one transaction: only the last write would ever be seen, leave the others out"
    )]
    KeyTwice {
        /// The key.
        key: String,
    },
    /// The server takes no more writes at once: 1,000, or what its operator has set. Nothing was written.
    #[error(
        "{count} writes are too many for one transaction: the server takes {most}, and nothing was written; split it"
    )]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// The batch did not arrive whole, time and again: the connection broke, say. Nothing was written.
    #[error(
        "the batch did not arrive whole, or the server held too many others, and gave it up: nothing was written, repeat it"
    )]
    Incomplete,
    /// The server holds as many batches that are still on their way as it may, and did so for the second that this one was
    /// repeated. Nothing was written.
    #[error(
        "the server holds as many unfinished transactions of this bucket or of all as it may, and nothing was written: repeat it later, start fewer at once, or raise `max_inflight_per_stream` under `jetstream.limits.batch` of the server"
    )]
    Busy,
    /// No answer came. It was committed, or not, or will be in a moment; never in part.
    #[error("no answer to the commit: whether it happened is unknown, `find_out()` looks")]
    Unknown(Box<UnknownOutcome>),
    /// Anything else. Nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// As of a single write: see [`StoreError`].
impl From<TransactionError> for crate::Error {
    fn from(error: TransactionError) -> Self {
        use crate::Code;
        let (code, text) = match error {
            TransactionError::Store(error) => return error.into(),
            TransactionError::Conflict { .. } => (
                Code::Aborted,
                "other changes came in between: read again and repeat",
            ),
            TransactionError::Incomplete | TransactionError::Busy => {
                (Code::Unavailable, "the store cannot answer now")
            }
            TransactionError::Unknown(_) => (
                Code::DeadlineExceeded,
                "no answer from the store in time: the change may have had its effect",
            ),
            _ => (Code::Internal, "the store cannot do that"),
        };
        crate::Error::new(code, text).with_cause(error)
    }
}

/// A key that is not as a transaction wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionConflict {
    /// The whole key.
    pub key: String,
    /// The revision that was wanted; 0 stands for "it has no value".
    pub expected: u64,
    /// The revision that is there now, deletion markers included; 0 when there is none.
    pub current: u64,
}

fn list(conflicts: &[TransactionConflict]) -> String {
    let mut text = String::new();
    for (i, conflict) in conflicts.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let TransactionConflict {
            key,
            expected,
            current,
        } = conflict;
        // Writing into a `String` does not fail.
        let _ = write!(
            text,
            "{comma}`{key}` is at revision {current} and not at {expected}"
        );
    }
    if conflicts.is_empty() {
        text.push_str("which key it was could not be found out");
    }
    text
}
