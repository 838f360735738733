//! Multi-get (ADR-31): the last messages of many subjects in one round trip.
//!
//! And whatever follows a sequence, in the same way.
//!
//! One request brings one part: up to 1,024 subjects, and no more than about 4 MiB, so that whoever reads a million keys
//! holds no more than that. It knows nothing of keys or values. Servers below 2.11 and buckets without direct get have none
//! of it, and what to do then is the caller's choice.

use super::error::{StoreError, closed, other, unavailable};
use super::stream::{Stored, Stream, repeated};
use async_nats::jetstream::context::traits::TimeoutProvider as _;
use async_nats::{HeaderMap, HeaderValue, Message, Request, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The server takes no more subjects than that in one request, and finds no more for a filter.
pub(crate) const MAX_SUBJECTS: usize = 1024;
/// What one part may bring, one message more or less. The server counts bodies and stored headers.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// How often a part is asked for that comes with a gap, or from which a message was removed while it was made.
const ATTEMPTS: u32 = 5;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Ask<'a> {
    /// Subjects or filters.
    #[serde(rename = "multi_last")]
    pub(crate) subjects: &'a [String],
    /// Only messages of this sequence or later ones.
    #[serde(rename = "seq", skip_serializing_if = "is_zero")]
    pub(crate) from: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Body<A> {
    #[serde(flatten)]
    ask: A,
    max_bytes: usize,
}

/// Whatever follows, whether it is the last of its subject or not.
#[derive(Serialize)]
struct Following<'a> {
    #[serde(rename = "next_by_subj")]
    subject: &'a str,
    #[serde(rename = "seq")]
    from: u64,
    batch: usize,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Multi {
    /// Messages by sequence.
    Part(Part),
    /// The filters match more subjects than one request may.
    TooMany,
    /// This server has no multi-get, or this bucket no direct get.
    Unsupported,
}

#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) messages: Vec<Stored>,
    /// There is more than fits a part.
    pub(crate) more: bool,
    /// The replica that answered had seen everything up to this sequence. It does not say so when it has none of the subjects.
    pub(crate) seen: Option<u64>,
}

/// What one reply is.
enum Reply {
    Message(Stored),
    End(Multi),
    /// The server knows no multi-get.
    Unknown,
    /// A message was removed (it expired, say) while the answer was made. Or, each time, the server knows no multi-get, and
    /// takes what else is asked for as a get of that sequence.
    Gone,
    /// A message before it was lost on the way.
    Gap,
}

impl Stream {
    /// The last message of each of these subjects that has one, and is not older than asked for.
    ///
    /// Any replica answers, and all messages of one part are of one moment there.
    pub(crate) async fn multi(&self, ask: Ask<'_>) -> Result<Multi, StoreError> {
        if self.lacks_multi() {
            return Ok(Multi::Unsupported);
        }
        match self.ask(ask).await? {
            Some(multi) => Ok(multi),
            None => {
                self.note_no_multi();
                Ok(Multi::Unsupported)
            }
        }
    }

    /// All messages of this filter from a sequence on, to the end of the stream as it is when the server comes to it. `more`
    /// is told by the number of them. `None` where the server or the bucket has no such thing.
    pub(crate) async fn following(
        &self,
        subject: &str,
        from: u64,
    ) -> Result<Option<Part>, StoreError> {
        let ask = Following {
            subject,
            from,
            batch: MAX_SUBJECTS,
        };
        let Some(Multi::Part(mut part)) = self.ask(ask).await? else {
            return Ok(None);
        };
        let bytes: usize = part.messages.iter().map(|it| it.payload.len()).sum();
        part.more = part.messages.len() >= MAX_SUBJECTS || bytes >= PART_BYTES / 2;
        Ok(Some(part))
    }

    async fn ask(&self, ask: impl Serialize) -> Result<Option<Multi>, StoreError> {
        let body = Body {
            ask,
            max_bytes: PART_BYTES,
        };
        let body = serde_json::to_vec(&body).map_err(|error| other(&error))?;
        let body = Bytes::from(body);
        for attempt in 1..=ATTEMPTS {
            match self.ask_once(body.clone()).await? {
                Reply::End(multi) => return Ok(Some(multi)),
                Reply::Unknown => return Ok(None),
                Reply::Gone if attempt == ATTEMPTS => return Ok(None),
                Reply::Message(_) | Reply::Gone | Reply::Gap => {}
            }
        }
        Err(unavailable(
            "messages of a multi-get were lost on their way",
        ))
    }

    async fn ask_once(&self, body: Bytes) -> Result<Reply, StoreError> {
        // What is being answered already is not asked for again, however long it takes.
        let (mut replies, mut reply) = repeated(|| self.begin(body.clone())).await?;
        let mut part = Part::default();
        loop {
            match read(reply, &mut part)? {
                Reply::Message(stored) => part.messages.push(stored),
                ended => return Ok(ended),
            }
            reply = self.next_reply(&mut replies).await?;
        }
    }

    /// Asks: the replies, and the first of them.
    async fn begin(&self, body: Bytes) -> Result<(Subscriber, Message), StoreError> {
        let client = self.js.client();
        let inbox = client.new_inbox();
        let replies = client.subscribe(inbox.clone()).await;
        let mut replies = replies.map_err(|_| closed())?;
        let mut request = Request::new().payload(body);
        request.inbox = Some(inbox);
        let subject = format!("DIRECT.GET.{}", self.name());
        let sent = self.js.send_request(subject, request).await;
        sent.map_err(|error| other(&error))?;
        let first = self.next_reply(&mut replies).await?;
        Ok((replies, first))
    }

    async fn next_reply(&self, replies: &mut Subscriber) -> Result<Message, StoreError> {
        // What has come already needs no timer.
        let next = match replies.next().now_or_never() {
            Some(next) => next,
            None => tokio::time::timeout(self.js.timeout(), replies.next())
                .await
                .map_err(|_| StoreError::Timeout)?,
        };
        next.ok_or_else(closed)
    }
}

/// What the headers of a reply say. Read in one pass: every look-up by name would allocate the name or hash it.
#[derive(Default)]
struct Said {
    subject: Option<String>,
    sequence: Option<u64>,
    created: Option<SystemTime>,
    /// The sequence of the message before it.
    last: Option<u64>,
    pending: Option<u64>,
    up_to: Option<u64>,
    /// Those that the message was stored with.
    stored: HeaderMap,
}

impl Said {
    fn by(headers: Option<&HeaderMap>) -> Self {
        let mut said = Self::default();
        for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
            // The server adds its own behind what was stored.
            let text = values.last().map_or("", HeaderValue::as_str);
            match AsRef::<str>::as_ref(name) {
                "Nats-Subject" => said.subject = Some(text.to_owned()),
                "Nats-Sequence" => said.sequence = text.parse().ok(),
                "Nats-Time-Stamp" => {
                    let time = OffsetDateTime::parse(text, &Rfc3339);
                    said.created = time.ok().map(SystemTime::from);
                }
                "Nats-Last-Sequence" => said.last = text.parse().ok(),
                "Nats-Num-Pending" => said.pending = text.parse().ok(),
                "Nats-UpTo-Sequence" => said.up_to = text.parse().ok(),
                "Nats-Stream" => {}
                _ => {
                    for value in values {
                        said.stored.append(name.clone(), value.clone());
                    }
                }
            }
        }
        said
    }

    fn message(self, payload: Bytes) -> Option<Stored> {
        Some(Stored {
            subject: self.subject?,
            sequence: self.sequence?,
            headers: self.stored,
            payload,
            created: self.created?,
        })
    }
}

fn read(message: Message, part: &mut Part) -> Result<Reply, StoreError> {
    let said = Said::by(message.headers.as_ref());
    let before = part.messages.last().map_or(0, |last| last.sequence);
    let whole = said.last.is_none_or(|last| last == before);
    match message.status.map(|status| status.as_u16()) {
        // A server that does not know `multi_last` takes what else is asked for as a get of that sequence.
        None if said.pending.is_none() => Ok(Reply::Unknown),
        Some(404) if message.description.as_deref() == Some("Message Not Found") => Ok(Reply::Gone),
        _ if !whole => Ok(Reply::Gap),
        None => {
            // What is left is said with each message. The end says it as well, but before 2.12 it says one too few.
            part.more = said.pending.is_some_and(|left| left > 0);
            let stored = said.message(message.payload);
            let stored = stored.ok_or_else(|| {
                unavailable("a reply to a multi-get does not say which message it is")
            })?;
            Ok(Reply::Message(stored))
        }
        Some(204) => {
            let mut part = std::mem::take(part);
            part.seen = said.up_to;
            Ok(Reply::End(Multi::Part(part)))
        }
        // None of them has a message.
        Some(404) => Ok(Reply::End(Multi::Part(Part::default()))),
        Some(413) => Ok(Reply::End(Multi::TooMany)),
        // Or finds the request empty.
        Some(408) => Ok(Reply::Unknown),
        // Nobody answers: direct get is off, or there is no leader, or no bucket. Single gets find out.
        _ if message.status == Some(StatusCode::NO_RESPONDERS) => {
            Ok(Reply::End(Multi::Unsupported))
        }
        Some(status) => Err(StoreError::Server {
            code: u64::from(status),
            description: message.description.unwrap_or_default(),
        }),
    }
}
