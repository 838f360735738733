//! The wire form of streams: one header that says what a message is, and how several items share a body.
//!
//! `Nats-Service-Stream: items seq=7 count=3` - a word, and numbers by name. A name that is not known is passed over, so that
//! a newer peer may say more. `docs/guide/streaming.md` has it all for other languages.

use bytes::{BufMut as _, Bytes, BytesMut};
use std::fmt;

/// The header.
pub(crate) const STREAM: &str = "Nats-Service-Stream";

/// What a message of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// Opens the stream: the request of the caller, and the service's first word, whose reply subject is where it listens.
    Open,
    /// Items, in order. None at all from a service says that its handler has begun to answer.
    Items,
    /// There are no more items. Its body is the answer of a method that takes a stream and answers once.
    End,
    /// The end, with an error: headers and body as of any error reply.
    Error,
    /// What has come, what may come, and what was sent; said as a heartbeat, too.
    #[default]
    State,
    /// The stream is of no more use to whoever says this.
    Cancel,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::Open, "open"),
    (Kind::Items, "items"),
    (Kind::End, "end"),
    (Kind::Error, "error"),
    (Kind::State, "state"),
    (Kind::Cancel, "cancel"),
];

/// How much: of what was sent, or of what may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    pub(crate) items: u64,
    /// Of bodies.
    pub(crate) bytes: u64,
}

/// The most that an end keeps of one stream until it is acknowledged, whatever its peer would take.
pub(crate) const MOST: Amount = Amount {
    items: 65_536,
    bytes: 8 << 20,
};

impl Amount {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_add(other.items),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// The larger of each: what was allowed once stays allowed, in whatever order it is heard of.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            items: self.items.max(other.items),
            bytes: self.bytes.max(other.bytes),
        }
    }

    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            items: self.items.min(other.items),
            bytes: self.bytes.min(other.bytes),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_sub(other.items),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// What a user asks for, in what there may be.
    pub(crate) fn window(items: usize, bytes: usize) -> Self {
        let clamp = |number: usize, most: u64| u64::try_from(number).unwrap_or(most).clamp(1, most);
        Self {
            items: clamp(items, MOST.items),
            bytes: clamp(bytes, MOST.bytes),
        }
    }

    /// Whether there is some of both.
    pub(crate) fn is_some(self) -> bool {
        self.items > 0 && self.bytes > 0
    }

    pub(crate) fn half(self) -> Self {
        Self {
            items: self.items.div_ceil(2),
            bytes: self.bytes.div_ceil(2),
        }
    }
}

/// The header's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    /// The number of this frame, from 1 on, of `items`, `end` and `error`.
    pub(crate) seq: u64,
    /// How many items the body holds, where it is not the one item itself.
    pub(crate) count: Option<u64>,
    /// Of `open` and `state`: so much in all may be sent to whoever says this.
    pub(crate) allowed: Amount,
    /// The last frame that has come in order.
    pub(crate) ack: u64,
    /// The last frame that was sent.
    pub(crate) sent: u64,
    /// Frames after `ack` are missing.
    pub(crate) resend: bool,
    /// Of whatever a service says: a number of its own, so that two that hear one request are not taken for each other.
    pub(crate) from: u64,
    /// Of the caller's `open`: milliseconds between two signs of life.
    pub(crate) beat: u64,
}

impl Head {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    /// `None` where it is nothing that this side could understand.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let word = words.next()?;
        let (kind, _) = KINDS.iter().find(|(_, name)| *name == word)?;
        let mut head = Self::new(*kind);
        for pair in words {
            let (name, value) = pair.split_once('=')?;
            let number = || value.parse::<u64>().ok();
            match name {
                "seq" => head.seq = number()?,
                "count" => head.count = Some(number()?),
                "items" => head.allowed.items = number()?,
                "bytes" => head.allowed.bytes = number()?,
                "ack" => head.ack = number()?,
                "sent" => head.sent = number()?,
                "resend" => head.resend = number()? != 0,
                "from" => head.from = number()?,
                "beat" => head.beat = number()?,
                _ => {}
            }
        }
        let numbered = matches!(head.kind, Kind::Items | Kind::End | Kind::Error);
        (numbered == (head.seq > 0)).then_some(head)
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, _)| *kind == self.kind);
        f.write_str(name.map_or("state", |(_, name)| name))?;
        let Amount { items, bytes } = self.allowed;
        match self.kind {
            Kind::Items | Kind::End | Kind::Error => {
                write!(f, " seq={}", self.seq)?;
                if let Some(count) = self.count {
                    write!(f, " count={count}")?;
                }
            }
            Kind::Open => {
                write!(f, " items={items} bytes={bytes}")?;
                if self.beat > 0 {
                    write!(f, " beat={}", self.beat)?;
                }
            }
            Kind::State => {
                let (ack, sent) = (self.ack, self.sent);
                write!(f, " ack={ack} items={items} bytes={bytes} sent={sent}")?;
                f.write_str(if self.resend { " resend=1" } else { "" })?;
            }
            Kind::Cancel => {}
        }
        match self.from {
            0 => Ok(()),
            from => write!(f, " from={from}"),
        }
    }
}

/// What stands before each of several items: its length.
pub(crate) const PREFIX: usize = 4;

/// Items that are to share a message.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    items: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Of a body with all of them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of a body with one more.
    pub(crate) fn bytes_with(&self, item: &Bytes) -> usize {
        self.bytes + PREFIX + item.len()
    }

    pub(crate) fn push(&mut self, item: Bytes) {
        self.bytes = self.bytes_with(&item);
        self.items.push(item);
    }

    /// The body, and what the header says of it. A single item is the body.
    pub(crate) fn take(&mut self) -> (Option<u64>, Bytes) {
        let bytes = std::mem::take(&mut self.bytes);
        if self.items.len() == 1
            && let Some(item) = self.items.pop()
        {
            return (None, item);
        }
        let count = self.items.len() as u64;
        let mut body = BytesMut::with_capacity(bytes);
        for item in self.items.drain(..) {
            // No item is longer than a message, and no message as long as this could not say.
            body.put_u32(u32::try_from(item.len()).unwrap_or(u32::MAX));
            body.put(item);
        }
        (Some(count), body.freeze())
    }
}

/// The items of a body; `None` where it is not what its header says.
pub(crate) fn split(count: Option<u64>, mut body: Bytes) -> Option<Vec<Bytes>> {
    let Some(count) = count else {
        return Some(vec![body]);
    };
    let count = usize::try_from(count).ok()?;
    if count > body.len() / PREFIX {
        return None;
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, _) = body.split_first_chunk::<PREFIX>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        if body.len() - PREFIX < length {
            return None;
        }
        let mut item = body.split_to(PREFIX + length);
        items.push(item.split_off(PREFIX));
    }
    body.is_empty().then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_and_a_newer_one_is_understood_as_far_as_it_is_known() {
        let state = Head {
            ack: 4,
            allowed: Amount {
                items: 9,
                bytes: u64::MAX,
            },
            sent: 2,
            resend: true,
            ..Head::default()
        };
        let items = Head {
            seq: 7,
            count: Some(0),
            ..Head::new(Kind::Items)
        };
        let open = Head {
            beat: 2000,
            allowed: state.allowed,
            ..Head::new(Kind::Open)
        };
        let marked = Head { from: 77, ..items };
        for head in [state, items, open, marked, Head::new(Kind::Cancel)] {
            assert_eq!(Head::parse(&head.to_string()), Some(head), "{head}");
        }
        let newer = Head::parse("items  seq=7 colour=9 count=0").unwrap();
        assert_eq!(newer, items);
    }

    #[test]
    fn what_is_no_head_is_none() {
        for text in [
            "",
            " ",
            "itemz seq=1",
            "items",
            "items seq=0",
            "items seq=-1",
            "items seq",
            "state seq=1",
            "cancel seq=99999999999999999999999",
        ] {
            assert_eq!(Head::parse(text), None, "{text}");
        }
    }

    #[test]
    fn items_share_a_body_and_a_single_one_is_the_body() {
        let all = ["", "a", "bcd"].map(|item| Bytes::from_static(item.as_bytes()));
        let mut batch = Batch::default();
        for item in &all {
            batch.push(item.clone());
        }
        assert_eq!((batch.len(), batch.bytes()), (3, 16));
        let (count, body) = batch.take();
        assert_eq!((count, body.len(), batch.bytes()), (Some(3), 16, 0));
        assert_eq!(split(count, body).unwrap(), all);
        batch.push(all[2].clone());
        let (count, body) = batch.take();
        assert_eq!((count, &body), (None, &all[2]));
        assert_eq!(split(count, body).unwrap(), [all[2].clone()]);
        let (count, body) = batch.take();
        assert_eq!((count, body.len()), (Some(0), 0));
        assert!(split(count, body).unwrap().is_empty());
    }

    #[test]
    fn a_body_that_is_not_what_its_head_says_is_refused() {
        let mut batch = Batch::default();
        batch.push(Bytes::from_static(b"abc"));
        batch.push(Bytes::from_static(b"de"));
        let (_, body) = batch.take();
        for count in [0, 1, 3, u64::MAX] {
            assert_eq!(split(Some(count), body.clone()), None, "{count}");
        }
        for end in 0..body.len() {
            assert_eq!(split(Some(2), body.slice(..end)), None, "{end}");
        }
        let lies = Bytes::from_static(b"\xff\xff\xff\xffabc");
        assert_eq!(split(Some(1), lies), None);
    }
}
