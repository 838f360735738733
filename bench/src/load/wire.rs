//! As much of the client protocol as a load generator needs: one subscription, requests made from a template, and replies told
//! from each other by the digits at the end of their subjects. No reconnection: a lost connection ends the measurement.

use super::SILENCE;
use crate::Result;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

/// Digits of an id, in the reply subject and in the body: a fixed width makes every request as long as every other.
const DIGITS: usize = 10;

/// The connection, and what came in on it but was not taken yet.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    writer: Writer,
    /// Where a read ends up first.
    chunk: Box<[u8]>,
    received: Vec<u8>,
    /// Where in `received` that which was not taken begins.
    taken: usize,
    template: Template,
}

/// The writing half. Behind a lock, since the answer to a ping must not end up inside a request that another thread sends.
#[derive(Debug, Clone)]
pub(super) struct Writer(Arc<Mutex<TcpStream>>);

impl Writer {
    pub(super) fn send(&self, bytes: &[u8]) -> Result<()> {
        let mut stream = self.0.lock().map_err(|_| "a sender panicked")?;
        Ok(stream.write_all(bytes)?)
    }
}

/// A whole `PUB`, but for the id, which it holds twice.
#[derive(Debug, Clone)]
pub(super) struct Template {
    text: Vec<u8>,
    reply_at: usize,
    body_at: usize,
    /// How long the inbox is in front of the id.
    inbox: usize,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
enum Frame<'a> {
    Reply {
        id: u64,
        headers: &'a [u8],
        body: &'a [u8],
    },
    Ping,
    Error(&'a [u8]),
    Other,
}

impl Template {
    fn new(subject: &str, inbox: &str) -> Self {
        let zeros = "0".repeat(DIGITS);
        // What `work::Request` is in JSON.
        let body = format!(r#"{{"id":"{zeros}","name":"Ada Lovelace","age":36,"active":true}}"#);
        let start = format!("PUB {subject} {inbox}");
        let line = format!("{start}{zeros} {}\r\n", body.len());
        Self {
            reply_at: start.len(),
            body_at: line.len() + r#"{"id":""#.len(),
            inbox: inbox.len(),
            text: format!("{line}{body}\r\n").into_bytes(),
        }
    }

    /// Appends the request of this id.
    pub(super) fn write(&self, id: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.text);
        let digits = digits(id);
        for at in [start + self.reply_at, start + self.body_at] {
            out[at..at + DIGITS].copy_from_slice(&digits);
        }
    }
}

impl Connection {
    pub(super) fn open(url: &str, subject: &str) -> Result<Self> {
        let address = url.strip_prefix("nats://").unwrap_or(url);
        let stream = TcpStream::connect(address.trim_end_matches('/'))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        // As long as the inboxes of the usual clients.
        let inbox = format!("_INBOX.bench{:017}.", std::process::id());
        let mut connection = Self {
            writer: Writer(Arc::new(Mutex::new(stream.try_clone()?))),
            stream,
            chunk: vec![0; 1 << 16].into(),
            received: Vec::with_capacity(1 << 20),
            taken: 0,
            template: Template::new(subject, &inbox),
        };
        // With `no_responders`, a request that nobody serves is answered at once instead of lost.
        let options = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"lang":"bench","version":"1"}"#;
        let hello = format!("CONNECT {options}\r\nSUB {inbox}* 1\r\nPING\r\n");
        connection.writer.send(hello.as_bytes())?;
        // A ping of the server may follow at once; it is answered with the first reply.
        let is_pong = |part: &[u8]| part == b"PONG\r\n";
        while !connection.received.windows(6).any(is_pong) {
            if connection.fill()? == 0 {
                return Err("the server said nothing".into());
            }
        }
        Ok(connection)
    }

    pub(super) fn template(&self) -> &Template {
        &self.template
    }

    pub(super) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Waits for replies and hands each over, with whether it is a proper one. `false` after a long silence.
    pub(super) fn receive(
        &mut self,
        mut reply: impl FnMut(u64, bool) -> Result<()>,
    ) -> Result<bool> {
        if self.fill()? == 0 {
            return Ok(false);
        }
        let inbox = self.template.inbox;
        while let Some((frame, length)) = parse(&self.received[self.taken..], inbox)? {
            match frame {
                Frame::Reply { id, headers, body } => reply(id, is_proper(id, headers, body))?,
                Frame::Ping => self.writer.send(b"PONG\r\n")?,
                Frame::Error(text) => return Err(String::from_utf8_lossy(text).into()),
                Frame::Other => {}
            }
            self.taken += length;
        }
        // Half a frame at the most is moved.
        self.received.drain(..self.taken);
        self.taken = 0;
        Ok(true)
    }

    /// Reads once: how much, or zero after [`SILENCE`].
    fn fill(&mut self) -> Result<usize> {
        match self.stream.read(&mut self.chunk) {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(length) => {
                self.received.extend_from_slice(&self.chunk[..length]);
                Ok(length)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The first frame and its length, if all of it is there.
fn parse(bytes: &[u8], inbox: usize) -> Result<Option<(Frame<'_>, usize)>> {
    let Some(line_end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let (line, after) = (bytes[..line_end].trim_ascii_end(), line_end + 1);
    let has_headers = line.starts_with(b"HMSG ");
    if !has_headers && !line.starts_with(b"MSG ") {
        let frame = match line {
            b"PING" => Frame::Ping,
            _ if line.starts_with(b"-ERR") => Frame::Error(line),
            _ => Frame::Other,
        };
        return Ok(Some((frame, after)));
    }
    // `MSG <subject> <sid> <total>`, `HMSG <subject> <sid> <headers> <total>`, and never a reply subject: nobody asks us.
    let mut words = line.split(|byte| *byte == b' ').skip(1);
    let mut word = || words.next().ok_or("a message line is too short");
    let (subject, _sid) = (word()?, word()?);
    let headers = if has_headers { number(word()?)? } else { 0 };
    let total = number(word()?)?;
    let (headers, total) = (usize::try_from(headers)?, usize::try_from(total)?);
    let Some(payload) = bytes.get(after..after + total + 2) else {
        return Ok(None);
    };
    let id = number(subject.get(inbox..).unwrap_or_default())?;
    let (headers, rest) = payload
        .split_at_checked(headers)
        .ok_or("headers too long")?;
    let body = rest.strip_suffix(b"\r\n").ok_or("no end of a message")?;
    let reply = Frame::Reply { id, headers, body };
    Ok(Some((reply, after + total + 2)))
}

/// Neither a status of the server nor an error of the service, and the answer to this very request.
fn is_proper(id: u64, headers: &[u8], body: &[u8]) -> bool {
    const ERROR: &[u8] = b"Nats-Service-Error";
    let no_error = headers.is_empty()
        || (headers.starts_with(b"NATS/1.0\r\n")
            && !headers.windows(ERROR.len()).any(|part| part == ERROR));
    no_error
        && body
            .strip_prefix(br#"{"id":""#)
            .is_some_and(|rest| rest.starts_with(&digits(id)))
}

fn digits(mut id: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit += (id % 10) as u8;
        id /= 10;
    }
    digits
}

fn number(digits: &[u8]) -> Result<u64> {
    let digit = |value: u64, byte: &u8| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    let value = digits.iter().try_fold(0, digit);
    let value = value.filter(|_| !digits.is_empty());
    value.ok_or_else(|| format!("not a number: {:?}", String::from_utf8_lossy(digits)).into())
}

#[cfg(test)]
mod tests {
    use super::{Frame, Template, is_proper, parse};

    const INBOX: &str = "_INBOX.x.";

    #[test]
    fn a_request_carries_its_id_in_the_reply_subject_and_in_the_body() {
        let mut out = Vec::new();
        Template::new("a.b", INBOX).write(42, &mut out);
        let text = String::from_utf8(out).expect("plain text");
        let (line, body) = text.split_once("\r\n").expect("two lines");
        let body = body.trim_end();
        assert_eq!(line, format!("PUB a.b _INBOX.x.0000000042 {}", body.len()));
        let request: crate::work::Request = serde_json::from_str(body).expect("a request");
        assert_eq!(request.id, "0000000042");
        let answer = serde_json::to_vec(&crate::work::echo(request)).expect("an answer");
        assert!(is_proper(42, b"", &answer));
        assert!(!is_proper(43, b"", &answer));
    }

    #[test]
    fn frames_are_taken_only_when_whole() {
        let bytes = b"MSG _INBOX.x.0000000007 1 2\r\n{}\r\nPING\r\n";
        for length in 0..33 {
            let part = parse(&bytes[..length], INBOX.len()).expect("not broken");
            assert_eq!(part, None, "{length} bytes");
        }
        let (frame, length) = parse(bytes, INBOX.len()).expect("whole").expect("whole");
        let (id, headers, body) = (7, &b""[..], &b"{}"[..]);
        assert_eq!(frame, Frame::Reply { id, headers, body });
        let rest = parse(&bytes[length..], INBOX.len()).expect("whole");
        assert_eq!(rest, Some((Frame::Ping, 6)));
    }

    #[test]
    fn an_error_in_the_headers_is_no_proper_answer() {
        let body = br#"{"id":"0000000001"}"#;
        assert!(is_proper(1, b"NATS/1.0\r\nContent-Type: x\r\n\r\n", body));
        assert!(!is_proper(1, b"NATS/1.0 503\r\n\r\n", body));
        let error = b"NATS/1.0\r\nNats-Service-Error-Code: 400\r\n\r\n";
        assert!(!is_proper(1, error, body));
        let frame = b"HMSG _INBOX.x.0000000001 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
        let (frame, length) = parse(frame, INBOX.len()).expect("whole").expect("whole");
        let (id, headers, body) = (1, &b"NATS/1.0 503\r\n\r\n"[..], &b""[..]);
        assert_eq!((frame, length), (Frame::Reply { id, headers, body }, 52));
    }

    #[test]
    fn what_is_no_number_ends_the_measurement() {
        assert!(parse(b"MSG _INBOX.x.12 1 x\r\n", INBOX.len()).is_err());
        assert!(parse(b"MSG short 1 0\r\n\r\n", INBOX.len()).is_err());
        assert!(parse(b"MSG\r\n", INBOX.len()).is_ok_and(|frame| frame.is_some()));
    }
}
