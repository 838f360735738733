//! One end of one stream while it lives: it sends what its source gives, as far as there is credit, takes what comes, and
//! notices when the other end is gone.
//!
//! Items that are ready together share a message; one that is alone is sent at once. Nothing is published while there is no
//! connection: it would queue up there, and all of it is sent again when the peer asks for it.

use super::inbox::{Mailbox, head, headers};
use super::incoming::{Incoming, Seen};
use super::inlet::{Broken, Inlet, Last};
use super::outgoing::{Outgoing, Sent};
use super::{Counters, Pace, StreamBreak};
use crate::wire::codec::CodecError;
use crate::wire::error::Error;
use crate::wire::error_reply;
use crate::wire::frame::{Amount, Batch, Head, Kind, split};
use crate::wire::header;
use crate::wire::outlet::Outlet;
use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use futures_util::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// A body of several items is not made larger than this: what is ready goes out before the rest is waited for, and a
/// message is short enough for others to get in between.
const BATCH: usize = 32 << 10;
/// More than the header of a frame ever takes.
const HEADERS: usize = 256;

/// Which end this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Of the service whose frames bear this mark.
    Caller {
        of: u64,
    },
    Service,
}

/// What a source gives.
#[derive(Debug)]
pub(crate) enum Produced {
    /// The handler has begun to answer.
    Begun,
    Item(Bytes),
    /// The one answer to a stream of requests.
    Answer(Bytes),
    Failed(Box<Error>),
    /// An item that could not be encoded.
    Unsendable(CodecError),
}

/// What is to be sent; its end is the stream's.
pub(crate) type Source<'a> = Pin<Box<dyn Stream<Item = Produced> + Send + 'a>>;

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// All was said and heard; of a service, with the error that it said.
    Done(Option<Box<Error>>),
    /// The peer wants no more.
    Cancelled,
    /// Our own reader wants no more.
    Dropped,
    Broken(StreamBreak),
}

/// The way to the peer.
pub(crate) struct Line {
    pub(crate) outlet: Outlet,
    pub(crate) peer: Subject,
    /// The mark of our frames; 0 where they need none.
    pub(crate) from: u64,
    /// Where we are heard, for a peer that does not know the stream any more.
    pub(crate) own: Subject,
    pub(crate) pace: Pace,
}

impl Line {
    /// False where it cannot have been sent.
    pub(crate) async fn put(&self, headers: HeaderMap, body: Bytes, own: bool) -> bool {
        if !self.outlet.is_connected() {
            return false;
        }
        let peer = self.peer.clone();
        let sent = async {
            match own {
                true => {
                    let own = self.own.clone();
                    self.outlet
                        .publish_with_reply(peer, own, headers, body)
                        .await
                }
                false => self.outlet.publish_with_headers(peer, headers, body).await,
            }
        };
        // A connection that takes nothing is as bad as none.
        matches!(
            tokio::time::timeout(self.pace.silence(), sent).await,
            Ok(Ok(()))
        )
    }

    async fn frame(&self, sent: &Sent) {
        let mut headers = headers(&self.marked(sent.head));
        let mut body = sent.body.clone();
        if let Some(error) = &sent.error {
            error_reply::write(error, &mut headers);
            let room = self.outlet.max_payload();
            let room = room.saturating_sub(header::size(&headers));
            body = error_reply::body(error, room);
        }
        self.put(headers, body, false).await;
    }

    pub(crate) async fn say(&self, head: &Head) -> bool {
        let own = head.kind != Kind::Cancel;
        self.put(headers(&self.marked(*head)), Bytes::new(), own)
            .await
    }

    /// Tells another service that it is not wanted.
    async fn decline(&self, other: Subject) {
        if super::is_inbox(&other) {
            let headers = headers(&Head::new(Kind::Cancel));
            let sent = self
                .outlet
                .publish_with_headers(other, headers, Bytes::new());
            // Where it does not arrive, silence will tell.
            let _ = tokio::time::timeout(self.pace.silence(), sent).await;
        }
    }

    pub(crate) fn marked(&self, head: Head) -> Head {
        let from = self.from;
        Head { from, ..head }
    }
}

pub(crate) struct Session<'s> {
    role: Role,
    line: Line,
    mailbox: Mailbox,
    out: Outgoing,
    inc: Incoming,
    inlet: Arc<Inlet>,
    source: Option<Source<'s>>,
    batch: Batch,
    /// An item that did not fit the batch.
    held: Option<Bytes>,
    begun: bool,
    last: Option<Final>,
    failed: Option<Box<Error>>,
    ticker: Interval,
    heard: Instant,
    /// A state was said since the last tick.
    said: bool,
    counters: Arc<Counters>,
}

struct Final {
    kind: Kind,
    body: Bytes,
    error: Option<Box<Error>>,
}

enum Event {
    Heard(Message),
    Closed,
    Speak,
    Send,
    Tick,
    End(Ended),
}

/// What a message asks for.
enum Answer {
    Nothing,
    Speak { resend: bool },
    Repeat { resend: bool },
    Decline(Subject),
    End(Ended),
}

impl<'s> Session<'s> {
    /// `allowed` is what the peer takes for a start, `window` what it was told that we take.
    pub(crate) fn new(
        role: Role,
        line: Line,
        mailbox: Mailbox,
        inlet: Arc<Inlet>,
        (allowed, window): (Amount, Amount),
        source: Option<Source<'s>>,
        counters: Arc<Counters>,
    ) -> Self {
        let beat = line.pace.beat;
        let mut ticker = interval_at(tokio::time::Instant::now() + beat, beat);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            role,
            line,
            mailbox,
            out: Outgoing::new(allowed),
            inc: Incoming::new(window),
            inlet,
            source,
            batch: Batch::default(),
            held: None,
            begun: false,
            last: None,
            failed: None,
            ticker,
            heard: Instant::now(),
            said: false,
            counters,
        }
    }

    /// Runs until the stream is over. The peer knows by then, if it can be told.
    pub(crate) async fn run(&mut self) -> Ended {
        let ended = loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Event::Heard(message) => match self.hear(message) {
                    Answer::Nothing => {}
                    Answer::Speak { resend } => self.speak(resend).await,
                    Answer::Repeat { resend } => {
                        for sent in self.out.kept() {
                            self.line.frame(sent).await;
                        }
                        self.speak(resend).await;
                    }
                    Answer::Decline(other) => self.line.decline(other).await,
                    Answer::End(ended) => break ended,
                },
                Event::Speak => self.speak(false).await,
                Event::Send => self.send().await,
                Event::Tick => {
                    if let Some(broken) = self.tick() {
                        break Ended::Broken(broken);
                    }
                    if !std::mem::take(&mut self.said) {
                        self.speak(false).await;
                        self.said = false;
                    }
                }
                Event::Closed => break Ended::Broken(StreamBreak::Closed),
                Event::End(ended) => break ended,
            }
            if self.role == Role::Service && self.out.delivered() {
                break Ended::Done(self.failed.take());
            }
        };
        // At once: a handler's stream is not to run on while its end is announced.
        self.source = None;
        match &ended {
            Ended::Done(_) if self.role != Role::Service => self.speak(false).await,
            Ended::Done(_) | Ended::Cancelled => {}
            Ended::Dropped => self.cancel().await,
            Ended::Broken(why) => {
                let broken = Broken::Break(why.clone());
                self.inlet.end(Last::Broken(broken));
                self.cancel().await;
            }
        }
        ended
    }

    /// Tells the peer that the stream is of no more use here.
    pub(crate) async fn cancel(&mut self) {
        self.line.say(&Head::new(Kind::Cancel)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match self.mailbox.poll(cx) {
            Poll::Ready(Some(message)) => return Poll::Ready(Event::Heard(message)),
            Poll::Ready(None) => return Poll::Ready(Event::Closed),
            Poll::Pending => {}
        }
        let look = self.inlet.look(cx);
        if look.closed && self.role != Role::Service {
            return Poll::Ready(Event::End(Ended::Dropped));
        }
        if let Some(error) = look.spoilt {
            self.finish(Kind::Error, Bytes::new(), Some(Box::new(error)));
        }
        if self.inc.due(look.read) {
            return Poll::Ready(Event::Speak);
        }
        if let Some(event) = self.fill(cx) {
            return Poll::Ready(event);
        }
        self.ticker.poll_tick(cx).map(|_| Event::Tick)
    }

    /// Takes what the source has ready, as far as the peer takes it.
    fn fill(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        let most = self.line.outlet.max_payload().saturating_sub(HEADERS);
        while self.batch.bytes() < BATCH.min(most) && self.out.takes(&self.batch) {
            let item = match self.held.take() {
                Some(item) => item,
                None => {
                    let Some(source) = &mut self.source else {
                        break;
                    };
                    let Poll::Ready(produced) = source.as_mut().poll_next(cx) else {
                        break;
                    };
                    match produced {
                        Some(Produced::Item(item)) => item,
                        Some(Produced::Begun) => {
                            self.begun = true;
                            continue;
                        }
                        Some(Produced::Answer(body)) if body.len() > most => {
                            if let Some(event) = self.too_large(body.len(), most) {
                                return Some(event);
                            }
                            break;
                        }
                        Some(Produced::Answer(body)) => {
                            self.finish(Kind::End, body, None);
                            break;
                        }
                        Some(Produced::Failed(error)) => {
                            self.finish(Kind::Error, Bytes::new(), Some(error));
                            break;
                        }
                        Some(Produced::Unsendable(error)) => {
                            return Some(self.give_up(Broken::Encode(error)));
                        }
                        None => {
                            self.finish(Kind::End, Bytes::new(), None);
                            break;
                        }
                    }
                }
            };
            if item.len() > most {
                if let Some(event) = self.too_large(item.len(), most) {
                    return Some(event);
                }
                break;
            }
            if !self.batch.is_empty() && self.batch.bytes_with(&item) > most {
                self.held = Some(item);
                break;
            }
            self.batch.push(item);
        }
        let something = self.begun || !self.batch.is_empty() || self.last.is_some();
        something.then_some(Event::Send)
    }

    /// A service says so to its caller, and a caller to whoever gave the item.
    fn too_large(&mut self, size: usize, max: usize) -> Option<Event> {
        if self.role != Role::Service {
            return Some(self.give_up(Broken::TooLarge { size, max }));
        }
        let text = format!(
            "an item of the stream has {size} bytes, and a message carries at most {max}; send smaller items, or answer with a `ByteStream`"
        );
        let error = Error::resource_exhausted(text).refused();
        self.finish(Kind::Error, Bytes::new(), Some(Box::new(error)));
        None
    }

    fn give_up(&self, why: Broken) -> Event {
        self.inlet.end(Last::Broken(why));
        Event::End(Ended::Dropped)
    }

    fn finish(&mut self, kind: Kind, body: Bytes, error: Option<Box<Error>>) {
        self.source = None;
        self.held = None;
        if self.out.ended() || self.last.is_some() {
            return;
        }
        self.failed.clone_from(&error);
        self.last = Some(Final { kind, body, error });
    }

    async fn send(&mut self) {
        if std::mem::take(&mut self.begun) || !self.batch.is_empty() {
            let items = self.batch.len();
            self.counters.sent.fetch_add(items as u64, Relaxed);
            let (count, body) = self.batch.take();
            let sent = self.out.push(Kind::Items, count, body, None);
            self.line.frame(sent).await;
        }
        if let Some(Final { kind, body, error }) = self.last.take() {
            let sent = self.out.push(kind, None, body, error);
            self.line.frame(sent).await;
        }
    }

    async fn speak(&mut self, resend: bool) {
        let head = Head {
            sent: self.out.last(),
            resend,
            ..self.inc.tell(self.inlet.read())
        };
        self.said = self.line.say(&head).await;
    }

    fn tick(&self) -> Option<StreamBreak> {
        let (now, limit) = (Instant::now(), self.line.pace.silence());
        if now - self.heard >= limit {
            return Some(StreamBreak::Silent { after: limit });
        }
        let waited = self.inc.missing_for(now)?;
        let after = self.inc.last();
        (waited >= limit).then_some(StreamBreak::Gap { after, waited })
    }

    fn hear(&mut self, message: Message) -> Answer {
        let Some(head) = message.headers.as_ref().and_then(head) else {
            return self.hear_other(&message);
        };
        if let Role::Caller { of } = self.role
            && head.from != of
        {
            // Another instance that heard the request: one is enough. A cancel without a mark is an inbox's.
            match head.kind {
                Kind::Cancel if head.from == 0 => {}
                Kind::Open => return message.reply.map_or(Answer::Nothing, Answer::Decline),
                _ => return Answer::Nothing,
            }
        }
        let now = Instant::now();
        self.heard = now;
        let pause = self.line.pace.beat / 4;
        match head.kind {
            Kind::Open => Answer::Nothing,
            Kind::Cancel => Answer::End(match self.role {
                // What is not acknowledged any more has still been said.
                Role::Service if self.out.ended() => Ended::Done(self.failed.take()),
                Role::Service => Ended::Cancelled,
                Role::Caller { .. } => Ended::Broken(StreamBreak::Forgotten),
            }),
            Kind::State => {
                let repeat = self.out.heard(&head, now, pause);
                let resend = head.sent > self.inc.last() && self.inc.miss(now, pause);
                match (repeat, resend) {
                    (true, resend) => Answer::Repeat { resend },
                    (false, true) => Answer::Speak { resend },
                    (false, false) => Answer::Nothing,
                }
            }
            Kind::Items | Kind::End | Kind::Error => match self.inc.see(&head) {
                Seen::Again => Answer::Nothing,
                Seen::Early if self.inc.miss(now, pause) => Answer::Speak { resend: true },
                Seen::Early => Answer::Nothing,
                Seen::Next => self.take(&head, message),
            },
        }
    }

    /// A message that is no frame: an error reply, when the service ended otherwise than by its stream; or anything, from
    /// anybody.
    fn hear_other(&mut self, message: &Message) -> Answer {
        let headers = message.headers.as_ref();
        let error = headers.and_then(|headers| error_reply::read(headers, &message.payload));
        match error {
            Some(error) if self.role != Role::Service => {
                let broken = Broken::Error(Box::new(error));
                self.inlet.end(Last::Broken(broken));
                Answer::End(Ended::Done(None))
            }
            _ => Answer::Nothing,
        }
    }

    /// The next frame.
    fn take(&mut self, head: &Head, message: Message) -> Answer {
        let bytes = message.payload.len();
        match head.kind {
            Kind::End => {
                self.inlet.end(Last::End(message.payload));
                self.taken_last()
            }
            Kind::Error => {
                let headers = message.headers.unwrap_or_default();
                let error = error_reply::read(&headers, &message.payload);
                let error = error.unwrap_or_else(|| Error::new(crate::Code::Unknown, "no text"));
                let broken = Broken::Error(Box::new(error));
                self.inlet.end(Last::Broken(broken));
                self.taken_last()
            }
            _ => {
                let Some(items) = split(head.count, message.payload) else {
                    return malformed("the body of a message does not hold the items that it says");
                };
                if !self.inc.count(items.len(), bytes) {
                    return malformed("more was sent than was allowed");
                }
                self.counters
                    .received
                    .fetch_add(items.len() as u64, Relaxed);
                self.inlet.feed(items, head.count.is_none());
                Answer::Nothing
            }
        }
    }

    fn taken_last(&self) -> Answer {
        match self.role {
            Role::Caller { .. } => Answer::End(Ended::Done(None)),
            Role::Service => Answer::Speak { resend: false },
        }
    }
}

fn malformed(what: &'static str) -> Answer {
    Answer::End(Ended::Broken(StreamBreak::Malformed { what }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::loopback::Loopback;
    use std::collections::HashMap;

    #[tokio::test]
    async fn an_error_is_said_by_its_headers_alone_where_a_message_has_no_room_for_more() {
        let local = Loopback::new(|_| HashMap::new());
        let mut outlet = local.outlet().clone();
        outlet.max_payload = 64;
        let mut pending = outlet.replies.one();
        let line = Line {
            outlet: Outlet::Local(outlet),
            peer: Loopback::inbox(pending.number()),
            from: 0,
            own: "_INBOX.local.own".into(),
            pace: Pace::default(),
        };
        let mut out = Outgoing::new(Amount::default());
        let error = Error::not_found("x".repeat(64));
        let sent = out.push(Kind::Error, None, Bytes::new(), Some(Box::new(error)));
        line.frame(sent).await;
        let said = pending.reply().await.unwrap();
        let headers = said.headers.unwrap_or_default();
        let error = error_reply::read(&headers, &said.payload);
        assert_eq!(error.map(|error| error.code()), Some(crate::Code::NotFound));
    }
}
