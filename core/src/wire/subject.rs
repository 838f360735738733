//! Where a deployment puts the subjects of a contract: the service's side and its callers' say it in the same way.

use crate::wire::spec::MethodSpec;
use async_nats::Subject;
use std::sync::Arc;

/// A subject and its reply subject share one line of the protocol, of 4 KiB.
const LONGEST_PREFIX: usize = 256;

/// A text that cannot stand before subjects, given to `Server::prefix` or to a client's `with_prefix`.
///
/// ```
/// # use nats_service::nats_service;
/// # #[nats_service] pub trait Greeter { async fn hello(&self, name: String) -> String; }
/// # async fn run(greeter: GreeterClient) {
/// let error = greeter.with_prefix("staging.*").unwrap_err();
/// assert_eq!(error.prefix, "staging.*");
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{prefix}` cannot be a prefix of subjects: it consists of ASCII letters, digits, `_` and `-`, in tokens joined by dots, has at most {LONGEST_PREFIX} bytes, and does not begin with `_INBOX`"
)]
#[non_exhaustive]
pub struct PrefixError {
    /// As it was given.
    pub prefix: String,
}

/// What stands before all subjects of a deployment: nothing, unless it says so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefix(Option<Arc<str>>);

impl Prefix {
    /// An empty text is none.
    pub(crate) fn new(prefix: &str) -> Result<Self, PrefixError> {
        let fits = prefix.split('.').all(is_name)
            && prefix.split('.').next() != Some("_INBOX")
            && prefix.len() <= LONGEST_PREFIX;
        match prefix {
            "" => Ok(Self(None)),
            _ if fits => Ok(Self(Some(prefix.into()))),
            _ => Err(PrefixError {
                prefix: prefix.to_owned(),
            }),
        }
    }

    /// Where a method is.
    pub(crate) fn of(&self, method: &MethodSpec) -> Subject {
        match &self.0 {
            None => Subject::from_static(method.subject),
            Some(prefix) => format!("{prefix}.{}", method.subject).into(),
        }
    }
}

/// A reply subject as whoever made it has it: a gateway puts `_GR_.<cluster>.<server>.` before it, which the far side takes off
/// again. `None` where nothing stands behind that.
pub(crate) fn behind_gateway(reply: &str) -> Option<&str> {
    match reply.strip_prefix("_GR_.") {
        Some(mapped) => mapped.splitn(3, '.').nth(2),
        None => Some(reply),
    }
}

/// The alphabet of names in subjects, as in the attributes.
pub(crate) fn is_name(token: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !token.is_empty() && token.chars().all(fits)
}
