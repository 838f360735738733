//! The headers that this framework reads and writes, by name.

/// The media type of a body or of an entry.
pub(crate) const CONTENT_TYPE: &str = "Content-Type";
/// ADR-32: the text of an error reply.
pub(crate) const SERVICE_ERROR: &str = "Nats-Service-Error";
/// ADR-32: the number of an error reply.
pub(crate) const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// The revision at which a `write = "before_reply"` answer was stored.
pub(crate) const REVISION: &str = "Nats-Service-Revision";
/// The object that holds an answer too large for a message: `<bucket>/<name>`.
pub(crate) const OBJECT: &str = "Nats-Service-Object";
/// The digest of that object, as its metadata has it.
pub(crate) const OBJECT_DIGEST: &str = "Nats-Service-Object-Digest";

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
    use super::sanitize;

    #[test]
    fn line_breaks_become_spaces_and_length_is_bounded_at_a_character() {
        assert_eq!(sanitize("a\r\nb\0c", 100), "a  b c");
        assert_eq!(sanitize("ééé", 5), "éé");
    }
}
