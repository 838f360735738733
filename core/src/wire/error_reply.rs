//! An error as a reply: two headers for every client of ADR-32, and a body that has the whole of it.

use super::codec::Codec;
use super::error::{Code, Error, WireCode};
use super::header;
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;

/// The longest text of an error header, in bytes; the body has the whole of it.
const MAX_TEXT: usize = 512;

/// Adds the two headers.
pub(crate) fn write(error: &Error, headers: &mut HeaderMap) {
    // Parsed: the infallible conversion panics on a line break.
    if let Ok(text) = header::sanitize(error.message(), MAX_TEXT).parse::<HeaderValue>() {
        headers.insert(header::SERVICE_ERROR, text);
    }
    let number = HeaderValue::from(error.code().number());
    headers.insert(header::SERVICE_ERROR_CODE, number);
}

/// The body; none where there is no room for it, since the headers still say what it is.
pub(crate) fn body(error: &Error, room: usize) -> Bytes {
    match Codec::Json.encode(error) {
        Ok(body) if body.len() <= room => body,
        _ => Bytes::new(),
    }
}

/// The error that a reply is, if it is one. Either header makes it one, and a body may say more.
pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Option<Error> {
    let text = header::said(headers, header::SERVICE_ERROR);
    let number = header::said(headers, header::SERVICE_ERROR_CODE);
    if text.is_none() && number.is_none() {
        return None;
    }
    let number = number.and_then(|number| number.parse().ok());
    if let Ok(mut error) = serde_json::from_slice::<Error>(body) {
        // A newer service's code, or another framework's: by its number it may be known.
        if let Some(number) = number
            && error.code() == Code::Unknown
            && number != Code::Unknown.number()
        {
            error.code = WireCode(Code::from_number(number));
        }
        return Some(error);
    }
    // A service that is not ours, or whose body was too large.
    let code = number.map_or(Code::Unknown, Code::from_number);
    let text = text.unwrap_or("the service answered with an error and no text");
    Some(Error::new(code, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_is_not_known_by_name_is_known_by_its_number() {
        let read = |number: &'static str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SERVICE_ERROR_CODE, number);
            read(&headers, body.as_bytes()).map(|error| error.code())
        };
        let foreign = r#"{"code": "no_such_profile", "message": "no"}"#;
        assert_eq!(read("404", foreign), Some(Code::NotFound));
        assert_eq!(read("500", foreign), Some(Code::Unknown));
        assert_eq!(read("no number", foreign), Some(Code::Unknown));
        // Where several share a number, the name decides.
        let named = r#"{"code": "Aborted", "message": "no"}"#;
        assert_eq!(read("409", named), Some(Code::Aborted));
    }
}
