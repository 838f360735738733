//! An error as a reply: two headers for every client of ADR-32, and a body that has the whole of it.

use super::codec::Codec;
use super::error::{Code, Error};
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
    if let Ok(error) = serde_json::from_slice::<Error>(body) {
        return Some(error);
    }
    // A service that is not ours, or whose body was too large.
    let code = number
        .and_then(|number| number.parse().ok())
        .map_or(Code::Unknown, Code::from_number);
    let text = text.unwrap_or("the service answered with an error and no text");
    Some(Error::new(code, text))
}
