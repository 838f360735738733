//! What may come of a call besides its answer.

use crate::connection::Denial;
use crate::store::StoreError;
use crate::streaming::StreamBreak;
use crate::wire::codec::CodecError;
use crate::wire::error::{Code, Error};
use crate::wire::header::HeaderError;
use async_nats::Subject;
use std::convert::Infallible;
use std::time::Duration;

/// Why a call brought no answer: the service's own error, or what kept the call from it.
///
/// ```
/// # use nats_service::{CallError, Code, ServiceError};
/// #[derive(Debug, ServiceError)]
/// enum ProfileError {
///     #[service_error(code = AlreadyExists, message = "{email} belongs to another profile")]
///     EmailTaken { email: String },
/// }
///
/// fn explain(error: CallError<ProfileError>) -> String {
///     match error {
///         CallError::Service(ProfileError::EmailTaken { email }) => format!("choose another address than {email}"),
///         other if other.code() == Code::Unavailable => "try again later".into(),
///         other => other.to_string(),
///     }
/// }
/// let taken = ProfileError::EmailTaken { email: "a@b.c".into() };
/// assert_eq!(explain(CallError::Service(taken)), "choose another address than a@b.c");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E = Infallible> {
    /// The service's own error, typed.
    #[error("{0}")]
    Service(E),
    /// An error reply that is not of the service's error type: one of the framework's refusals, or one that a newer
    /// service knows and this client does not.
    #[error("{code}: {0}", code = .0.code())]
    Remote(Error),
    /// Nobody listens on the subject.
    #[error("no service listens on `{subject}`")]
    NoResponders {
        /// Where it was sent.
        subject: Subject,
    },
    /// No reply came in time. Whether the service handled the request is unknown.
    #[error(
        "no reply from `{subject}` within {after:?}; whether it was handled is unknown (a call that the server's permissions deny looks the same: `ConnectionEvents` tells it apart)"
    )]
    Timeout {
        /// Where it was sent.
        subject: Subject,
        /// How long the call waited.
        after: Duration,
    },
    /// The server's permissions deny the call. Only a connection with [`ConnectionEvents`](crate::ConnectionEvents) shows it;
    /// on any other it is a `Timeout`.
    #[error("the call was not delivered: {0}")]
    Denied(Denial),
    /// The deadline had passed before the call was made. Nothing was sent.
    #[error("the deadline had passed before `{subject}` was called: nothing was sent")]
    Late {
        /// Where it was to go.
        subject: Subject,
    },
    /// A header cannot be sent. Nothing was sent.
    #[error("the request was not sent: {0}")]
    Header(#[source] HeaderError),
    /// The request is larger than the server takes. Nothing was sent.
    #[error(
        "the request to `{subject}` has {size} bytes, and the server takes at most {max}: nothing was sent"
    )]
    TooLarge {
        /// Where it was to go.
        subject: Subject,
        /// Bytes of the body and of the headers.
        size: usize,
        /// The server's `max_payload`.
        max: usize,
    },
    /// The request could not be encoded. Nothing was sent.
    #[error("the request was not sent: {0}")]
    Encode(#[source] CodecError),
    /// The reply is not what the contract says.
    #[error("the reply does not fit the contract: {0}")]
    Decode(#[source] CodecError),
    /// The answer was stored as an object because of its size, and could not be fetched from there.
    #[error("the answer could not be fetched from its object: {0}")]
    Object(#[source] StoreError),
    /// The call was sent several times, and the last attempt failed as well: with whatever `last` is, which is none of the
    /// service's own errors.
    #[error("gave up after {attempts} attempts: {last}")]
    GaveUp {
        /// How often it was sent.
        attempts: u32,
        /// What the last attempt brought.
        #[source]
        last: Box<CallError>,
    },
    /// A stream ended before its end.
    #[error("the stream of `{subject}` broke: {why}")]
    Broken {
        /// Where it was opened.
        subject: Subject,
        /// What happened.
        #[source]
        why: StreamBreak,
    },
    /// A layer of the client has failed, or has let the call go no further.
    #[cfg(feature = "tower")]
    #[error("a layer of the client ended the call: {source}")]
    Layer {
        /// What kind of failure it is: `DeadlineExceeded` and `ResourceExhausted` for tower's own errors of these, that of a
        /// [`crate::Error`], or `Internal`.
        code: Code,
        /// What the layer said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection does not work, or was closed.
    #[error("the connection failed: {0}")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CallError<Error> {
    /// The failure of an attempt of this number.
    pub(super) fn after(self, attempts: u32) -> Self {
        match attempts {
            0 | 1 => self,
            _ => CallError::GaveUp {
                attempts,
                last: Box::new(CallError::of_reply(self)),
            },
        }
    }
}

impl<E: crate::ServiceError> CallError<E> {
    /// The same failure, with an error reply taken for what it is.
    pub(super) fn of_reply(failure: CallError<Error>) -> Self {
        match failure {
            CallError::Service(error) => match E::from_wire(error) {
                Ok(error) => CallError::Service(error),
                Err(error) => CallError::Remote(error),
            },
            CallError::Remote(error) => CallError::Remote(error),
            CallError::NoResponders { subject } => CallError::NoResponders { subject },
            CallError::Timeout { subject, after } => CallError::Timeout { subject, after },
            CallError::Denied(denial) => CallError::Denied(denial),
            CallError::Late { subject } => CallError::Late { subject },
            CallError::Header(error) => CallError::Header(error),
            CallError::TooLarge { subject, size, max } => {
                CallError::TooLarge { subject, size, max }
            }
            CallError::Encode(error) => CallError::Encode(error),
            CallError::Decode(error) => CallError::Decode(error),
            CallError::Object(error) => CallError::Object(error),
            CallError::GaveUp { attempts, last } => {
                let last = match *last {
                    // The service's own error stays what it is, however often it was asked for.
                    CallError::Remote(error) => match E::from_wire(error) {
                        Ok(error) => return CallError::Service(error),
                        Err(error) => CallError::Remote(error),
                    },
                    last => last,
                };
                CallError::GaveUp {
                    attempts,
                    last: Box::new(last),
                }
            }
            CallError::Broken { subject, why } => CallError::Broken { subject, why },
            #[cfg(feature = "tower")]
            CallError::Layer { code, source } => CallError::Layer { code, source },
            CallError::Connection(error) => CallError::Connection(error),
        }
    }

    /// The kind of failure, by the table that services use.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            CallError::Service(error) => error.to_wire().code(),
            CallError::Remote(error) => error.code(),
            CallError::NoResponders { .. } | CallError::Connection(_) => Code::Unavailable,
            CallError::Timeout { .. } | CallError::Late { .. } => Code::DeadlineExceeded,
            CallError::Denied(_) => Code::PermissionDenied,
            CallError::TooLarge { .. } | CallError::Encode(_) | CallError::Header(_) => {
                Code::InvalidArgument
            }
            CallError::Decode(_) => Code::Internal,
            CallError::GaveUp { last, .. } => last.code(),
            CallError::Object(_)
            | CallError::Broken {
                why: StreamBreak::Gap { .. },
                ..
            } => Code::DataLoss,
            CallError::Broken {
                why: StreamBreak::Malformed { .. } | StreamBreak::Panicked,
                ..
            } => Code::Internal,
            CallError::Broken { .. } => Code::Unavailable,
            #[cfg(feature = "tower")]
            CallError::Layer { code, .. } => *code,
        }
    }

    /// The service's own error, if it is one.
    #[must_use]
    pub fn into_service(self) -> Option<E> {
        match self {
            CallError::Service(error) => Some(error),
            _ => None,
        }
    }
}
