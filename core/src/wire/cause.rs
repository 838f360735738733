//! What lies behind a typed error, for the service's operator and for nobody else.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The error behind a service's error, as a field of its type: it is logged at the service with everything behind it, and
/// never sent. The caller's copy is empty.
///
/// ```
/// use nats_service::{Cause, ServiceError};
/// use std::error::Error as _;
///
/// #[derive(Debug, ServiceError)]
/// enum ProfileError {
///     #[service_error(code = Unavailable, message = "the database does not answer")]
///     Database { cause: Cause },
/// }
///
/// fn load() -> Result<String, ProfileError> {
///     std::fs::read_to_string("/no/such/file").map_err(|error| ProfileError::Database { cause: Cause::new(error) })
/// }
///
/// let error = load().unwrap_err();
/// assert!(error.source().is_some());
/// assert!(error.to_wire().details()["cause"].is_null());
/// ```
#[derive(Clone, Default)]
pub struct Cause(Option<Arc<dyn Error + Send + Sync>>);

impl Cause {
    /// This one.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Some(error.into().into()))
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(error) => fmt::Debug::fmt(error, f),
            None => f.write_str("Cause(not known here)"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(error) => fmt::Display::fmt(error, f),
            None => f.write_str("not known here"),
        }
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_ref().and_then(|error| error.source())
    }
}

/// Causes are not compared: one side of the wire has none.
impl PartialEq for Cause {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Serialize for Cause {
    /// Always nothing: what is behind an error is not the caller's business.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Cause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self(None))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Cause {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cause".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        <()>::json_schema(generator)
    }
}

/// An error and everything behind it, on one line.
pub(crate) fn chain(error: &dyn Error) -> Option<String> {
    let mut next = error.source();
    let mut text = String::new();
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    (!text.is_empty()).then_some(text)
}
