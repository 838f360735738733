//! What can become of a write that is not stored, and which failures are worth another attempt.
//!
//! The rule: whatever may pass is tried again without end, because the caller was told that its call succeeded. That
//! includes a bucket that is full (entries expire, an operator raises the bound); meanwhile the writer's own bound
//! fills, and new requests are shed, which is the honest answer. Only what this very message can never get past is
//! given up: too large, malformed, forbidden by the bucket's settings.

use crate::store::error::is_wrong_last_sequence;
use bytes::Bytes;
use serde::Deserialize;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Why an answer was not stored, or may not have been.
///
/// ```
/// let error = nats_service::WriteError::Closed;
/// assert!(error.to_string().contains("stopped"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The server refuses this write, and would refuse it again.
    #[error("the bucket refuses the write: {description} (error code {code})")]
    Refused {
        /// The server's error code; 0 when the client refused it already.
        code: u64,
        /// The server's text.
        description: String,
    },
    /// The time was over, and the write is surely not stored.
    #[error("not stored in time{}", last(.cause))]
    NotStored {
        /// The last failure, if there was one.
        cause: Option<String>,
    },
    /// The time was over, and an attempt was made of which nothing is known: the write is stored, or it is not.
    #[error("not acknowledged in time, it may be stored all the same{}", last(.cause))]
    Unknown {
        /// The last failure, if there was one.
        cause: Option<String>,
    },
    /// The writer had been drained before the write came.
    #[error("the writer has stopped")]
    Closed,
}

impl WriteError {
    /// Whether the server says that somebody else has written the key.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if is_wrong_last_sequence(*code))
    }
}

fn last(cause: &Option<String>) -> String {
    cause
        .as_ref()
        .map(|cause| format!("; the last attempt: {cause}"))
        .unwrap_or_default()
}

/// An answer that was not stored, whole: a hook can put it elsewhere.
///
/// Given to the hook of `Server::on_failed_write`, and in the report of a drain that ran out of time.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailedWrite {
    /// The bucket.
    pub bucket: Arc<str>,
    /// The key, or the object's name.
    pub key: String,
    /// The encoded value; `None` when the key was to be deleted.
    pub value: Option<Bytes>,
    /// What the value is encoded as.
    pub content_type: &'static str,
    /// Why. With [`WriteError::Unknown`] the value may be stored all the same.
    pub error: WriteError,
    /// How often it was tried.
    pub attempts: u32,
}

/// What is called with every answer that is not stored.
///
/// It is called on the writer's task: it must not block, and hands slow work on (to a channel, or a spawned task).
pub type FailureHook = Arc<dyn Fn(&FailedWrite) + Send + Sync>;

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: u64,
    pub(super) text: Cow<'static, str>,
    /// Another attempt may succeed.
    pub(super) transient: bool,
    /// The message may be stored all the same.
    pub(super) in_doubt: bool,
}

impl Fault {
    pub(super) fn transient(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: 0,
            text: text.into(),
            transient: true,
            in_doubt: false,
        }
    }

    pub(super) fn permanent(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            transient: false,
            ..Self::transient(text)
        }
    }

    pub(super) fn in_doubt(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            in_doubt: true,
            ..Self::transient(text)
        }
    }

    pub(super) fn ack_timeout() -> Self {
        Self::in_doubt(
            "no acknowledgement (a publish that the server denies shows itself so, too: see the connection's events)",
        )
    }

    pub(super) fn connection_lost() -> Self {
        Self::in_doubt("the connection was lost")
    }

    /// The error for somebody who is told that it is over.
    pub(super) fn into_error(fault: Option<Fault>, in_doubt: bool) -> WriteError {
        match fault {
            Some(fault) if !fault.transient => WriteError::Refused {
                code: fault.code,
                description: fault.text.into_owned(),
            },
            fault => {
                let cause = fault.map(|fault| fault.to_string());
                if in_doubt {
                    WriteError::Unknown { cause }
                } else {
                    WriteError::NotStored { cause }
                }
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.code != 0 {
            write!(f, " (error code {})", self.code)?;
        }
        Ok(())
    }
}

/// What comes back from a publish, by itself or in a batch.
#[derive(Deserialize)]
pub(super) struct Ack<'a> {
    /// `ack`, `gap` and `err` stand only in the answers to a batch that goes on or has just failed.
    #[serde(rename = "type")]
    pub(super) kind: Option<&'a str>,
    /// Of the stream; with a `kind` of the batch.
    pub(super) seq: Option<u64>,
    /// After how many messages of a batch the next acknowledgement comes.
    pub(super) msgs: Option<u64>,
    /// How many messages of a batch that has ended are stored.
    pub(super) count: Option<u64>,
    #[serde(borrow)]
    error: Option<AckError<'a>>,
}

#[derive(Deserialize)]
struct AckError<'a> {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(borrow, default)]
    description: Cow<'a, str>,
}

/// Reads an acknowledgement: the sequence, or what failed. A duplicate is as good as a first.
pub(super) fn parse_ack(body: &[u8]) -> Result<u64, Fault> {
    Ack::parse(body)?.into_result()
}

impl<'a> Ack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Fault> {
        serde_json::from_slice(body).map_err(|_| not_of_a_stream())
    }

    pub(super) fn into_result(self) -> Result<u64, Fault> {
        match self {
            Self {
                error: Some(error), ..
            } => Err(Fault {
                code: error.err_code,
                transient: is_transient(error.code, error.err_code),
                in_doubt: error.err_code == DUPLICATE_IN_PROCESS,
                text: Cow::Owned(error.description.into_owned()),
            }),
            Self { seq: Some(seq), .. } => Ok(seq),
            _ => Err(not_of_a_stream()),
        }
    }
}

/// Somebody else answered on this subject; the next attempt may reach the stream.
fn not_of_a_stream() -> Fault {
    Fault::in_doubt("what came back is no acknowledgement of a stream")
}

const DUPLICATE_IN_PROCESS: u64 = 10158;

/// Whether another attempt may succeed. Server errors (5xx) may; client errors (4xx) do not, but for these.
fn is_transient(code: u16, err_code: u64) -> bool {
    match err_code {
        // Larger than the bucket or the account allows; an invalid configuration; sealed; a header that it refuses.
        10054 | 10052 | 10109 | 10165 | 10166 => false,
        // The account or the bucket is full; the stream is not there (yet, or again); an earlier attempt is in process;
        // too many requests.
        10002 | 10059 | DUPLICATE_IN_PROCESS | 10167 => true,
        _ => !(400..500).contains(&code) || matches!(code, 408 | 429),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_is_written() {
        let ack = br#"{"stream":"KV_a","seq":7,"duplicate":true}"#;
        assert_eq!(parse_ack(ack), Ok(7));
    }

    #[test]
    fn only_what_can_never_succeed_is_given_up() {
        let transient = |body: &str| parse_ack(body.as_bytes()).unwrap_err().transient;
        let full = r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"KV_a","seq":0}"#;
        assert!(transient(full));
        let large = r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#;
        assert!(!transient(large));
        assert!(!transient(r#"{"error":{"code":400,"err_code":10003}}"#));
        assert!(transient(r#"{"error":{"code":503,"err_code":10008}}"#));
        assert!(transient(r#"{"error":{"code":500}}"#));
        assert!(transient("+OK"));
    }

    #[test]
    fn the_error_says_whether_the_value_may_be_stored() {
        let lost = Some(Fault::connection_lost());
        let unknown = Fault::into_error(lost.clone(), true).to_string();
        assert!(unknown.contains("may be stored"), "{unknown}");
        assert!(matches!(
            Fault::into_error(None, false),
            WriteError::NotStored { cause: None }
        ));
        let refused = Fault::into_error(Some(Fault::permanent("too large")), false);
        assert!(matches!(refused, WriteError::Refused { .. }));
    }
}
