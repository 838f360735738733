//! The error table, and how an error crosses the wire.
//!
//! On the wire an error is a reply with `Nats-Service-Error` (the message), `Nats-Service-Error-Code` (the number), and a
//! JSON body `{"code", "message", "variant"?, "details"?, "refused"?}`; `refused` is true when the framework says it, and not
//! the handler. JSON whatever the service's codec is: an error must be
//! readable for a caller that chose the wrong codec.

use super::cause::Cause;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal),+ $(,)?) => {
        /// What kind of failure an error is: gRPC's set by meaning, HTTP's numbers by value.
        ///
        /// The number is what `Nats-Service-Error-Code` carries; where two kinds share one, the name in the body decides.
        ///
        /// ```
        /// use nats_service::Code;
        /// assert_eq!(Code::NotFound.number(), 404);
        /// assert_eq!(Code::from_number(404), Code::NotFound);
        /// assert_eq!(Code::NotFound.to_string(), "NotFound");
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)+
        }

        impl Code {
            pub(crate) const ALL: &'static [Code] = &[$(Code::$name),+];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Code::$name => $number,)+ }
            }

            /// The name, as it stands in the body.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)+ }
            }
        }
    };
}

codes! {
    /// The request is wrong, whatever the state of the service.
    InvalidArgument = 400,
    /// The caller did not say who it is.
    Unauthenticated = 401,
    /// The caller may not do this.
    PermissionDenied = 403,
    /// What was asked for does not exist.
    NotFound = 404,
    /// What was to be made exists already.
    AlreadyExists = 409,
    /// Another change came in between; reading again and repeating may succeed.
    Aborted = 409,
    /// The state of the service does not allow it, and repeating does not help.
    FailedPrecondition = 412,
    /// A position beyond the end.
    OutOfRange = 416,
    /// A limit is reached; repeat later, more slowly.
    ResourceExhausted = 429,
    /// The caller gave up.
    Cancelled = 499,
    /// The service is broken, and its operator has to look.
    Internal = 500,
    /// Data is lost or damaged.
    DataLoss = 500,
    /// Nothing more is known.
    Unknown = 500,
    /// The service has no such endpoint.
    Unimplemented = 501,
    /// Not now; repeating may succeed.
    Unavailable = 503,
    /// It took too long. The call may have had its effect all the same.
    DeadlineExceeded = 504,
}

impl Code {
    /// The first kind that has this number; `Unknown` for a number that is not in the table.
    #[must_use]
    pub fn from_number(number: u16) -> Self {
        let found = Self::ALL.iter().find(|code| code.number() == number);
        found.copied().unwrap_or(Code::Unknown)
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|code| code.name() == name).copied()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error that can cross the wire: a code, a message, and what a typed error carries besides.
///
/// Handlers that need no error type of their own return it; the framework's own refusals are of it too.
///
/// ```
/// use nats_service::{Code, Error};
/// let error = Error::not_found("no profile `abc`");
/// assert_eq!(error.code(), Code::NotFound);
/// assert_eq!(error.to_string(), "no profile `abc`");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Error {
    pub(crate) code: WireCode,
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub(crate) details: serde_json::Value,
    /// The handler did not say it: the framework did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) refused: bool,
    #[serde(skip)]
    pub(crate) cause: Option<Cause>,
}

/// A code by name, which may come from a newer peer that knows more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub(crate) struct WireCode(pub(crate) Code);

impl From<String> for WireCode {
    fn from(name: String) -> Self {
        WireCode(Code::from_name(&name).unwrap_or(Code::Unknown))
    }
}

impl From<WireCode> for &'static str {
    fn from(code: WireCode) -> Self {
        code.0.name()
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $code:ident),+ $(,)?) => {
        impl Error {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(message: impl Into<String>) -> Self {
                    Self::new(Code::$code, message)
                }
            )+
        }
    };
}

constructors! {
    /// [`Code::InvalidArgument`] with this message.
    invalid_argument = InvalidArgument,
    /// [`Code::Unauthenticated`] with this message.
    unauthenticated = Unauthenticated,
    /// [`Code::PermissionDenied`] with this message.
    permission_denied = PermissionDenied,
    /// [`Code::NotFound`] with this message.
    not_found = NotFound,
    /// [`Code::AlreadyExists`] with this message.
    already_exists = AlreadyExists,
    /// [`Code::FailedPrecondition`] with this message.
    failed_precondition = FailedPrecondition,
    /// [`Code::ResourceExhausted`] with this message.
    resource_exhausted = ResourceExhausted,
    /// [`Code::Internal`] with this message.
    internal = Internal,
    /// [`Code::Unavailable`] with this message.
    unavailable = Unavailable,
    /// [`Code::DeadlineExceeded`] with this message.
    deadline_exceeded = DeadlineExceeded,
}

impl Error {
    /// An error of this kind.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code: WireCode(code),
            message: message.into(),
            variant: None,
            details: serde_json::Value::Null,
            refused: false,
            cause: None,
        }
    }

    /// Says what lies behind it, for the operator alone: the service logs it with everything behind it, and sends nothing
    /// of it.
    ///
    /// ```
    /// use nats_service::Error;
    /// fn load(path: &str) -> Result<String, Error> {
    ///     std::fs::read_to_string(path).map_err(|error| Error::unavailable("no profiles now").with_cause(error))
    /// }
    /// let error = load("/no/such/file").unwrap_err();
    /// assert_eq!(error.to_string(), "no profiles now");
    /// assert!(std::error::Error::source(&error).is_some());
    /// ```
    #[must_use]
    pub fn with_cause(
        mut self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.cause = Some(Cause::new(cause));
        self
    }

    /// Marks the error as the framework's own, so that a caller does not take it for the service's.
    pub(crate) fn refused(mut self) -> Self {
        self.refused = true;
        self
    }

    /// Adds what a program on the other side can use: `{"field": "id"}`, say.
    #[must_use]
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = details;
        self
    }

    /// Says which variant of a typed error this is; `#[derive(ServiceError)]` writes it.
    #[must_use]
    pub fn with_variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// The kind.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code.0
    }

    /// The text for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The variant of the service's typed error, where it was one.
    #[must_use]
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// What came along for a program; null when there was nothing.
    #[must_use]
    pub fn details(&self) -> &serde_json::Value {
        &self.details
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = self.cause.as_ref()?;
        Some(cause)
    }
}

/// An error type that a service may answer with. Derive it.
///
/// ```
/// use nats_service::{Code, ServiceError};
///
/// #[derive(Debug, PartialEq, ServiceError)]
/// enum ProfileError {
///     #[service_error(code = AlreadyExists, message = "{email} belongs to another profile")]
///     EmailTaken { email: String },
///     #[service_error(code = NotFound, message = "no such profile")]
///     Unknown,
/// }
///
/// let taken = ProfileError::EmailTaken { email: "a@b.c".into() };
/// assert_eq!(taken.to_string(), "a@b.c belongs to another profile");
/// let wire = taken.to_wire();
/// assert_eq!(wire.code(), Code::AlreadyExists);
/// assert_eq!(ProfileError::from_wire(wire).unwrap(), taken);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no error that a service can answer with",
    label = "this error cannot cross the wire",
    note = "add `#[derive(nats_service::ServiceError)]` to `{Self}`, or return `nats_service::Error`"
)]
pub trait ServiceError: std::error::Error + Send + Sync + Sized + 'static {
    /// The error as it travels.
    fn to_wire(&self) -> Error;

    /// The error as it came.
    ///
    /// # Errors
    /// Gives the error back when it is none of this type: one of the framework's, or a variant of a newer service.
    fn from_wire(error: Error) -> Result<Self, Error>;
}

impl ServiceError for Error {
    fn to_wire(&self) -> Error {
        // One that came from another service, and that this handler passes on, is the handler's now.
        let refused = false;
        Error {
            refused,
            ..self.clone()
        }
    }

    fn from_wire(error: Error) -> Result<Self, Error> {
        if error.refused { Err(error) } else { Ok(error) }
    }
}

impl ServiceError for std::convert::Infallible {
    fn to_wire(&self) -> Error {
        match *self {}
    }

    fn from_wire(error: Error) -> Result<Self, Error> {
        Err(error)
    }
}
