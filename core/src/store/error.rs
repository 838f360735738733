//! What can go wrong between a caller and a bucket.
//!
//! Every text says what to do about it. What the server said is kept in numbers, so that a program can decide by them.

use super::key::KeyError;
use crate::wire::codec::CodecError;
use async_nats::jetstream::{self, context};
use std::error::Error as _;

/// A store could not do what it was asked.
///
/// ```
/// use nats_service::StoreError;
/// let error = StoreError::Conflict { key: "user.abc".into(), expected: 3, current: Some(5) };
/// assert!(error.to_string().contains("now at 5"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Neither the client nor the server was given a JetStream context.
    #[error(
        "no JetStream: pass `async_nats::jetstream::new(nats.clone())` to `with_jetstream(..)` to use the stores; calls work without it"
    )]
    NoJetStream,
    /// The key is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The name of a bucket has characters outside `[A-Za-z0-9_-]`, or none at all.
    #[error(
        "`{bucket}` is no bucket name: use letters, digits, `-` and `_` of ASCII, at most 250 of them"
    )]
    BucketName {
        /// As it was given.
        bucket: String,
    },
    /// The name of an object is empty or too long.
    #[error("`{name}` is no object name: {reason}")]
    ObjectName {
        /// As it was given; cut when it is too long.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The value could not be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The bytes of an entry or of an object are not a value of the store's type. Only that entry is concerned.
    #[error(
        "`{key}` at revision {revision} is of another type: {source}; overwrite it, or roll it back to a revision that can be read"
    )]
    Undecodable {
        /// The entry's key, or the object's name.
        key: String,
        /// Which revision of it.
        revision: u64,
        /// What the codec says.
        source: CodecError,
    },
    /// The bucket does not exist.
    #[error(
        "there is no bucket `{bucket}`: start the service that provisions it, or create it with `nats kv add` or `nats object add`"
    )]
    BucketNotFound {
        /// Its name.
        bucket: String,
    },
    /// Somebody else wrote in between.
    #[error(
        "`{key}` was changed by another writer: revision {expected} was expected, it is now at {}; read it again and repeat",
        .current.map_or_else(|| "an unknown one".to_owned(), |revision| revision.to_string())
    )]
    Conflict {
        /// The entry's key, or the object's name.
        key: String,
        /// The revision that the write was conditional on; 0 stands for "there is none".
        expected: u64,
        /// The revision that is there now, deletion markers included; `None` where it could not be found out.
        current: Option<u64>,
    },
    /// A write on condition was refused by a server that does not know the revision which it was conditional on. For a moment
    /// after a leader that was cut off is back, two servers may take themselves for the leader, and the other one may have
    /// taken the write: whether it had its effect is **unknown**.
    #[error(
        "`{key}`: revision {expected} was expected, and the server that refused the write is only at {current}: it is behind, or the revision is of another bucket; another server may have taken the write, so read before you repeat it"
    )]
    Behind {
        /// The entry's key.
        key: String,
        /// The revision that the write was conditional on.
        expected: u64,
        /// The revision that this server has.
        current: u64,
    },
    /// This revision is not (or no longer) one of the key, or it marks a deletion.
    #[error(
        "`{key}` has no value at revision {revision}: it was never one, or the bucket's history is shorter than that"
    )]
    RevisionNotFound {
        /// The entry's key.
        key: String,
        /// The revision that was asked for.
        revision: u64,
    },
    /// No answer came in time. Whether a write had its effect is **unknown**.
    #[error(
        "no answer from JetStream in time; a write may have had its effect, so read before you repeat it. A missing permission shows itself in the same way: look at the connection's event callback"
    )]
    Timeout,
    /// Nothing answers for this bucket at the moment: JetStream is off, or its leader is being elected.
    #[error(
        "JetStream does not answer for this bucket right now ({reason}): repeat after a few seconds; if it lasts, check that the server runs with JetStream"
    )]
    Unavailable {
        /// What was noticed.
        reason: String,
    },
    /// A time to live that cannot be given to this key.
    #[error("`{key}` cannot be given that time to live: {rule}")]
    Ttl {
        /// The entry's key.
        key: String,
        /// What is in the way, and the way out.
        rule: TtlRule,
    },
    /// The bucket does not show this revision yet.
    #[error(
        "revision {revision} is not visible after {} ms: the newest that was seen is {newest}. Is it a revision of this bucket? If so, a replica or a mirror lags; wait longer, or read from the leader",
        .waited.as_millis()
    )]
    NotVisible {
        /// The revision that was waited for.
        revision: u64,
        /// The newest that was seen; 0 for none.
        newest: u64,
        /// How long.
        waited: std::time::Duration,
    },
    /// This server, or this bucket, cannot do that.
    #[error("{what} is not possible here: it needs {needs}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// What there would have to be.
        needs: &'static str,
    },
    /// Keys were written all the time while they were to be read as of one revision.
    #[error(
        "no moment was found between writes at which {keys} keys could be read together; read fewer, or read them one by one"
    )]
    Unsettled {
        /// How many were asked for.
        keys: usize,
    },
    /// The bucket is a mirror, and the handle does not know of what.
    #[error(
        "`{bucket}` is a mirror of the bucket `{origin}`: open it with `KvStore::open`, which reads the mirror and writes to its origin"
    )]
    Mirror {
        /// The bucket.
        bucket: String,
        /// What it is a copy of.
        origin: String,
    },
    /// The object was overwritten or deleted while it was read.
    #[error("the object `{name}` was overwritten or deleted while it was read: read it again")]
    ObjectChanged {
        /// Its name.
        name: String,
    },
    /// The object's bytes are not those that were stored.
    #[error("the object `{name}` is damaged: {reason}; store it again")]
    Digest {
        /// Its name.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// There is no object of this name, or it was deleted.
    #[error("there is no object `{name}`: store it first")]
    ObjectNotFound {
        /// Its name.
        name: String,
    },
    /// An object of this name is there already, and is not to be overwritten.
    #[error("there is an object `{name}` already: delete it first, or use another name")]
    ObjectExists {
        /// Its name.
        name: String,
    },
    /// A link that leads nowhere in one step, or would.
    #[error("`{name}` {reason}")]
    Link {
        /// The link's name, or that of what should have become its target.
        name: String,
        /// The rule that it breaks, and the way out.
        reason: &'static str,
    },
    /// The range begins after the object's end, or after its own.
    #[error("there are no bytes {start} to {end} of an object of {size}: ask for a part of it")]
    Range {
        /// The first byte that was asked for.
        start: u64,
        /// The byte after the last that was asked for.
        end: u64,
        /// The object's size.
        size: u64,
    },
    /// The bucket is sealed: nothing in it can change any more.
    #[error("the bucket is sealed and cannot be written to: use another one")]
    Sealed,
    /// The bytes to be stored could not be read.
    #[error("the source of the object failed: {0}; nothing was stored")]
    Source(std::io::Error),
    /// Any other refusal by the server.
    #[error("JetStream refused ({code}): {description}")]
    Server {
        /// Its error code, five digits; 0 where it gave none.
        code: u64,
        /// Its words.
        description: String,
    },
}

/// For a handler that works with stores and answers with [`Error`](crate::Error): `store.at(id)?.get().await?`. The caller learns
/// what kind of failure it is, and the service's log the rest: names of buckets and the server's words are not the caller's business.
///
/// ```
/// use nats_service::{Code, Error, StoreError};
/// let error = Error::from(StoreError::Conflict { key: "user.7".into(), expected: 3, current: Some(4) });
/// assert_eq!((error.code(), error.to_string().contains("user.7")), (Code::Aborted, false));
/// assert!(std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("user.7")));
/// ```
impl From<StoreError> for crate::Error {
    fn from(error: StoreError) -> Self {
        use crate::Code;
        use StoreError as E;
        let (code, text) = match error {
            // It names the field and the rule, and nothing but what the caller sent.
            E::Key(key) => return key.into(),
            E::Conflict { expected: 0, .. } | E::ObjectExists { .. } => {
                (Code::AlreadyExists, "it exists already")
            }
            E::Conflict { .. } => (
                Code::Aborted,
                "another change came in between: read again and repeat",
            ),
            E::RevisionNotFound { .. } | E::ObjectNotFound { .. } => {
                (Code::NotFound, "there is no such value")
            }
            E::Range { .. } => (Code::OutOfRange, "there are no such bytes"),
            E::Timeout | E::Behind { .. } => (
                Code::DeadlineExceeded,
                "no answer from the store in time: a change may have had its effect",
            ),
            E::Unavailable { .. }
            | E::NotVisible { .. }
            | E::Unsettled { .. }
            | E::ObjectChanged { .. } => (Code::Unavailable, "the store cannot answer now"),
            E::Undecodable { .. } | E::Digest { .. } => {
                (Code::DataLoss, "what is stored cannot be read")
            }
            _ => (Code::Internal, "the store cannot do that"),
        };
        crate::Error::new(code, text).with_cause(error)
    }
}

/// What keeps a key from a time to live of its own (ADR-48).
///
/// ```
/// assert!(nats_service::TtlRule::OnPut.to_string().contains("create"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TtlRule {
    /// It is below one second.
    #[error("the server takes none below one second")]
    TooShort,
    /// It is no whole number of seconds, and the server would cut it.
    #[error("the server counts whole seconds: say {seconds} s or {} s", .seconds + 1)]
    NotWholeSeconds {
        /// The whole seconds in it.
        seconds: u64,
    },
    /// It is for an entry that is created, and for the mark that a purge leaves.
    #[error(
        "only `create` and `purge` take one: when it ended, an older revision of the key would come back. Create the key with it (after `delete_if`, to renew it), or give all entries one with the bucket's `ttl`"
    )]
    OnPut,
    /// The bucket has no times to live of keys.
    #[error(
        "the bucket does not allow it: name `key_ttl = true` or `limit_markers = \"..\"` where the bucket is made, with `provision = \"update\"` if it is there already (the stream's setting is `allow_msg_ttl`)"
    )]
    Disabled,
    /// The server has none.
    #[error(
        "the server's JetStream API is of level {level}, and it needs level 1: nats-server 2.11 or later"
    )]
    OldServer {
        /// What `$JS.API.INFO` says; 0 where it says nothing.
        level: u64,
    },
    /// The server refused it for another reason.
    #[error("the server refused it")]
    Refused,
}

/// What the server answers when a write was conditional on another revision; the second on replicated buckets.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];
const STREAM_NOT_FOUND: u64 = 10059;
const SEALED: u64 = 10109;
const TTL_INVALID: u64 = 10165;
const TTL_DISABLED: u64 = 10166;
/// JetStream is off for the server or the account, has no leader, or is short of resources.
const UNAVAILABLE: [u64; 5] = [10008, 10023, 10039, 10076, 10118];

/// Whether the server refuses a write because its key has another revision than was expected.
pub(crate) fn is_wrong_last_sequence(code: u64) -> bool {
    WRONG_LAST_SEQUENCE.contains(&code)
}

/// A refusal, before it is known which key or bucket it is about.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A time to live was refused.
    Ttl(TtlRule),
    /// A conditional write came too late; the subject's last sequence, where the server tells it.
    WrongLastSequence(Option<u64>),
    /// The stream is unknown to a server that has JetStream.
    NoStream,
    /// Nobody listens on the subject.
    NoResponders,
    Other(StoreError),
}

impl From<&jetstream::Error> for Refusal {
    fn from(error: &jetstream::Error) -> Self {
        let code = error.error_code().0;
        let text = error.to_string();
        // The text is `<description> (code .., error code ..)`; the codes are told apart from it.
        let description = text.split(" (code ").next().unwrap_or_default().to_owned();
        match code {
            code if is_wrong_last_sequence(code) => {
                let told = description.rsplit(": ").next().unwrap_or_default();
                Refusal::WrongLastSequence(told.parse().ok())
            }
            STREAM_NOT_FOUND => Refusal::NoStream,
            SEALED => Refusal::Other(StoreError::Sealed),
            TTL_INVALID => Refusal::Ttl(TtlRule::Refused),
            TTL_DISABLED => Refusal::Ttl(TtlRule::Disabled),
            code if UNAVAILABLE.contains(&code) => Refusal::Other(unavailable(description)),
            code => Refusal::Other(StoreError::Server { code, description }),
        }
    }
}

impl From<context::RequestError> for Refusal {
    fn from(error: context::RequestError) -> Self {
        match error.kind() {
            context::RequestErrorKind::TimedOut => Refusal::Other(StoreError::Timeout),
            context::RequestErrorKind::NoResponders => Refusal::NoResponders,
            _ => Refusal::Other(other(&error)),
        }
    }
}

impl From<context::PublishError> for Refusal {
    fn from(error: context::PublishError) -> Self {
        use context::PublishErrorKind as Kind;
        match error.kind() {
            Kind::StreamNotFound => Refusal::NoResponders,
            Kind::TimedOut => Refusal::Other(StoreError::Timeout),
            Kind::BrokenPipe => Refusal::Other(closed()),
            _ => {
                let source = error.source();
                match source.and_then(|source| source.downcast_ref::<jetstream::Error>()) {
                    Some(refused) => refused.into(),
                    None => Refusal::Other(other(&error)),
                }
            }
        }
    }
}

impl StoreError {
    /// The same once more, for another reader of what ended.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::BucketNotFound { bucket } => Self::BucketNotFound {
                bucket: bucket.clone(),
            },
            Self::Timeout => Self::Timeout,
            Self::Unavailable { reason } => unavailable(reason),
            Self::Server { code, description } => Self::Server {
                code: *code,
                description: description.clone(),
            },
            error => other(error),
        }
    }
}

/// Nothing answers, for this reason.
pub(crate) fn unavailable(reason: impl Into<String>) -> StoreError {
    let reason = reason.into();
    StoreError::Unavailable { reason }
}

/// The connection was closed, by us.
pub(crate) fn closed() -> StoreError {
    unavailable("the connection is closed")
}

/// Something that has no code: said as it is.
pub(crate) fn other(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Server {
        code: 0,
        description: error.to_string(),
    }
}

impl Refusal {
    /// The error, for a request that is not conditional; `bucket` is what it was about.
    pub(crate) fn about(self, bucket: &str) -> StoreError {
        match self {
            Refusal::WrongLastSequence(current) => StoreError::Conflict {
                key: bucket.to_owned(),
                expected: 0,
                current,
            },
            Refusal::Ttl(rule) => StoreError::Ttl {
                key: bucket.to_owned(),
                rule,
            },
            Refusal::NoStream => StoreError::BucketNotFound {
                bucket: bucket.to_owned(),
            },
            Refusal::NoResponders => unavailable("no responders"),
            Refusal::Other(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_codes_of_a_conflict_are_one_and_say_the_revision_where_it_is_told() {
        for (code, description, told) in [
            (10071, "wrong last sequence: 7", Some(7)),
            (10164, "wrong last sequence", None),
        ] {
            let error =
                serde_json::json!({ "code": 400, "err_code": code, "description": description });
            let error: jetstream::Error = serde_json::from_value(error).unwrap();
            match Refusal::from(&error) {
                Refusal::WrongLastSequence(revision) => assert_eq!(revision, told),
                other => panic!("{other:?}"),
            }
        }
    }
}
