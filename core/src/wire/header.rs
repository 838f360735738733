//! The headers that this framework reads and writes, by name; and what a header of a user's may be.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// The media type of a body or of an entry.
pub(crate) const CONTENT_TYPE: &str = "Content-Type";
/// The media types that a caller understands.
pub(crate) const ACCEPT: &str = "Accept";
/// ADR-32: the text of an error reply.
pub(crate) const SERVICE_ERROR: &str = "Nats-Service-Error";
/// ADR-32: the number of an error reply.
pub(crate) const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// The revision at which a `write = "before_reply"` answer was stored.
pub(crate) const REVISION: &str = "Nats-Service-Revision";
/// The key under which it was stored; an object's name where the answer is in no KV bucket before the reply.
pub(crate) const KEY: &str = "Nats-Service-Key";
/// Which instance answered; said by endpoints that all of them answer.
pub(crate) const INSTANCE: &str = "Nats-Service-Instance";
/// In a reply: that it did not come from the handler, and where from (`hit`, `stale`, `shared`). In an entry: that it is no
/// answer, and what else (`error`, `claim`, `free`).
pub(crate) const CACHE: &str = "Nats-Service-Cache";
/// In an entry: when the answer was stored that a claim carries along, in milliseconds since 1970.
pub(crate) const CACHE_TIME: &str = "Nats-Service-Cache-Time";
/// The object that holds an answer too large for a message: `<bucket>/<name>`.
pub(crate) const OBJECT: &str = "Nats-Service-Object";
/// The digest of that object, as its metadata has it.
pub(crate) const OBJECT_DIGEST: &str = "Nats-Service-Object-Digest";
/// In an entry that was written in a batch of many: which writer's it is, and which of its writes.
pub(crate) const WRITE: &str = "Nats-Service-Write";

/// For how many milliseconds, from the request's arrival, its caller waits: a decimal number. Left out when it is as long as
/// the contract says.
pub(crate) const TIMEOUT: &str = "Nats-Service-Timeout";
/// What the server says of a caller of another account.
pub(crate) const REQUEST_INFO: &str = "Nats-Request-Info";

/// A header could not be set.
///
/// ```
/// # use nats_service::{Context, HeaderError, async_nats::HeaderMap};
/// # let ctx = Context::detached(HeaderMap::new(), std::time::Duration::from_secs(1));
/// let error = ctx.set_header("Nats-Msg-Id", "1").unwrap_err();
/// assert!(error.to_string().contains("`Nats-Msg-Id` is written by NATS or by this framework"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// It is not what a name is made of.
    #[error(
        "`{name}` cannot be the name of a header: printable ASCII without spaces and colons can"
    )]
    Name {
        /// As it was given, without control characters.
        name: String,
    },
    /// It holds a line break or another control character.
    #[error("the value of the header `{name}` holds a control character; encode it")]
    Value {
        /// Of which header.
        name: String,
    },
    /// `Nats-..` and `Content-Type` mean something already.
    #[error(
        "the header `{name}` is written by NATS or by this framework; take a name that does not begin with `Nats-`, `X-{name}` say"
    )]
    Reserved {
        /// As it was given.
        name: String,
    },
}

/// A header of a user's, ready to be set.
pub(crate) fn checked(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let printable = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    let Some(parsed) = name.parse().ok().filter(|_| printable) else {
        let name = sanitize(name, 128);
        return Err(HeaderError::Name { name });
    };
    let ours = |prefix: &str| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let name = name.to_owned();
    if ours("Nats-") || name.eq_ignore_ascii_case(CONTENT_TYPE) {
        return Err(HeaderError::Reserved { name });
    }
    match value.parse() {
        Ok(value_) if !value.chars().any(|c| c.is_control() && c != '\t') => Ok((parsed, value_)),
        _ => Err(HeaderError::Value { name }),
    }
}

/// How long the caller waits, where it says so. What is no number says nothing: the contract's time-out holds then.
pub(crate) fn caller_timeout(headers: Option<&HeaderMap>) -> Option<Duration> {
    let said = headers?.get(HeaderName::from_static(TIMEOUT))?;
    said.as_str().parse().ok().map(Duration::from_millis)
}

/// What a header of ours says. A look by name would copy the name first, and most replies have no headers at all.
pub(crate) fn said<'h>(headers: &'h HeaderMap, name: &'static str) -> Option<&'h str> {
    if headers.is_empty() {
        return None;
    }
    let value = headers.get(HeaderName::from_static(name))?;
    Some(value.as_str())
}

/// What these headers take in a message: the server counts them to the payload.
pub(crate) fn size(headers: &HeaderMap) -> usize {
    let frame = "NATS/1.0\r\n\r\n".len();
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        let rest = name.len() + ": \r\n".len();
        values.iter().map(move |value| value.as_str().len() + rest)
    });
    frame + lines.sum::<usize>()
}

/// Makes `text` fit for a header value: no line breaks or other control characters, and no more than `max` bytes.
///
/// async-nats panics on a CR or LF in an infallible conversion, which would take the endpoint's task with it.
pub(crate) fn sanitize(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_header_is_one_line_under_a_name_of_its_own() {
        assert!(checked("X-Tenant", "a b\tc").is_ok());
        for name in ["", "a b", "a:b", "a\r\nb", "tenänt", "a\0"] {
            let error = checked(name, "1").unwrap_err();
            assert!(matches!(error, HeaderError::Name { .. }), "{name:?}");
        }
        for name in [
            "Nats-Msg-Id",
            "nats-service-error",
            "content-type",
            "Nats-Expected-Stream",
        ] {
            let error = checked(name, "1").unwrap_err();
            assert!(matches!(error, HeaderError::Reserved { .. }), "{name}");
        }
        for value in ["a\r\nb", "a\nNats-Service-Error: x", "a\0"] {
            let error = checked("X-A", value).unwrap_err();
            assert!(matches!(error, HeaderError::Value { .. }), "{value:?}");
        }
    }

    #[test]
    fn a_caller_s_time_is_a_number_of_milliseconds_and_anything_else_says_nothing() {
        let said = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, value);
            caller_timeout(Some(&headers))
        };
        assert_eq!(said("250"), Some(Duration::from_millis(250)));
        assert_eq!(said("0"), Some(Duration::ZERO));
        assert_eq!(
            said("18446744073709551615"),
            Some(Duration::from_millis(u64::MAX))
        );
        for garbage in ["", "-1", "1s", "1.5", " 1", "18446744073709551616"] {
            assert_eq!(said(garbage), None, "{garbage:?}");
        }
        assert_eq!(caller_timeout(None), None);
    }

    #[test]
    fn headers_take_what_the_server_counts() {
        let mut headers = HeaderMap::new();
        headers.insert("A", "bc");
        headers.append("A", "d");
        assert_eq!(size(&headers), "NATS/1.0\r\nA: bc\r\nA: d\r\n\r\n".len());
    }

    #[test]
    fn line_breaks_become_spaces_and_length_is_bounded_at_a_character() {
        assert_eq!(sanitize("a\r\nb\0c", 100), "a  b c");
        assert_eq!(sanitize("ééé", 5), "éé");
    }
}
