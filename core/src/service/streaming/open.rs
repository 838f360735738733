//! From a request that opens a stream to the stream's end: not generic, so compiled once.

use super::super::admit::Admitted;
use super::super::endpoint::FOREVER;
use super::super::finish::{Context, Verdict};
use super::super::reply::ReplyRule;
use super::side::{Opening, Side, once};
use crate::streaming::{
    Counters, Ended, Inbox, Inlet, Line, Mailbox, Pace, Produced, Role, Session, Source, WINDOW,
    write,
};
use crate::wire::codec::Codec;
use crate::wire::error::{Code, Error};
use crate::wire::frame::{Amount, Head, Kind};
use crate::wire::header;
use crate::wire::outlet::Outlet;
use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Instant;

/// The streams of a server.
#[derive(Debug)]
pub(crate) struct Streams {
    outlet: Outlet,
    inbox: Inbox,
    open: AtomicUsize,
    most: usize,
    /// How much of a caller's stream may be under way or unread.
    window: Amount,
}

/// What a server allows its streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamLimits {
    pub(crate) most: usize,
    pub(crate) window: Amount,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            most: 1024,
            window: WINDOW,
        }
    }
}

impl Streams {
    pub(crate) fn new(outlet: Outlet, rule: &Arc<ReplyRule>, limits: StreamLimits) -> Arc<Self> {
        let rule = Arc::clone(rule);
        let allowed = Arc::new(move |reply: &str| rule.check(reply).is_ok());
        Arc::new(Self {
            inbox: Inbox::new(outlet.clone(), allowed),
            outlet,
            open: AtomicUsize::new(0),
            most: limits.most,
            window: limits.window,
        })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Acquire)
    }

    fn enter(self: &Arc<Self>, counters: &Arc<Counters>) -> Option<Place> {
        let more = |open| (open < self.most).then_some(open + 1);
        self.open.fetch_update(AcqRel, Acquire, more).ok()?;
        counters.open.fetch_add(1, Relaxed);
        Some(Place {
            streams: Arc::clone(self),
            counters: Arc::clone(counters),
        })
    }
}

/// One of the open streams, counted.
struct Place {
    streams: Arc<Streams>,
    counters: Arc<Counters>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.open.fetch_sub(1, AcqRel);
        self.counters.open.fetch_sub(1, Relaxed);
    }
}

/// A stream that was let in, before its handler answers.
pub(crate) struct Stream {
    place: Place,
    line: Line,
    mailbox: Mailbox,
    inlet: Arc<Inlet>,
    /// What our items are written in.
    codec: Codec,
    /// What the caller takes, and what we do.
    windows: (Amount, Amount),
}

impl Context {
    /// A stream's call ends with the stream, and not with the time that it has to begin.
    pub(super) fn admit_stream(
        &self,
        headers: Option<HeaderMap>,
        received: Instant,
    ) -> Result<Admitted, Error> {
        self.admit(headers, received, received + FOREVER)
    }

    /// Lets a stream in. A caller that sends one is told at once where to.
    pub(super) async fn open_stream(
        &self,
        asked: Option<Head>,
        message: &Message,
        call: &Admitted,
    ) -> Result<(Stream, Side), Error> {
        let (subject, (codec, _)) = (self.spec.subject, call.codecs());
        let asked = asked.filter(|head| head.kind == Kind::Open);
        let (Some(asked), Some(reply)) = (asked, &message.reply) else {
            return Err(Error::invalid_argument(format!(
                "{subject}: this method streams; send `{}: open` with the request, and a reply subject (docs/guide/streaming.md)",
                crate::wire::frame::STREAM
            )));
        };
        let streams = &self.streams;
        let Some(place) = streams.enter(&self.stats.streams) else {
            return Err(Error::resource_exhausted(format!(
                "{subject}: {} streams are open, and no more may be; try again later",
                streams.most
            )));
        };
        let window = match self.spec.stream.takes() {
            true => streams.window,
            false => Amount::default(),
        };
        let mailbox = streams.inbox.open(window).await.map_err(|error| {
            Error::unavailable(format!("{subject}: the stream cannot be opened: {error}"))
        })?;
        let line = Line {
            outlet: streams.outlet.clone(),
            peer: reply.clone(),
            own: Subject::from(mailbox.subject.clone()),
            from: mailbox.mark,
            pace: Pace::of_millis(asked.beat),
        };
        let inlet = Inlet::new(window);
        let side = Side {
            inlet: Arc::clone(&inlet),
            requests: call.codec,
            answers: codec,
        };
        let allowed = match asked.allowed.is_some() {
            true => asked.allowed,
            false => WINDOW,
        };
        let stream = Stream {
            place,
            line,
            mailbox,
            inlet,
            codec,
            windows: (allowed, window),
        };
        if self.spec.stream.takes() {
            stream.say_open(HeaderMap::new()).await;
        }
        Ok((stream, side))
    }

    /// Runs it to its end.
    pub(super) async fn run_stream(
        &self,
        stream: Stream,
        opening: Opening<'_>,
        call: &Admitted,
        deadline: Instant,
    ) -> Verdict {
        let headers = || {
            let context = call.context();
            let headers = context.and_then(|context| context.take_reply_headers());
            headers.map(|headers| *headers).unwrap_or_default()
        };
        let reply = || Some(stream.line.peer.clone());
        let source = if self.spec.stream.takes() {
            while_requests_come(opening)
        } else {
            match tokio::time::timeout_at(deadline.into(), opening).await {
                Ok(Ok(outbound)) => {
                    stream.say_open(headers()).await;
                    outbound.source
                }
                Ok(Err(error)) => return self.fail(reply(), headers(), error).await,
                Err(_) => {
                    let text = format!("{} took too long to begin", self.spec.subject);
                    return self.refuse(reply(), Error::deadline_exceeded(text)).await;
                }
            }
        };
        let Stream {
            place,
            line,
            mailbox,
            inlet,
            windows,
            ..
        } = stream;
        let counters = Arc::clone(&place.counters);
        let mut session = Session::new(
            Role::Service,
            line,
            mailbox,
            inlet,
            windows,
            Some(source),
            counters,
        );
        match session.run().await {
            Ended::Done(error) => error,
            Ended::Cancelled | Ended::Dropped => None,
            Ended::Broken(why) => {
                let subject = self.spec.subject;
                tracing::info!(subject, %why, "a stream broke");
                let text = format!("{subject}: the stream broke: {why}");
                Some(Box::new(Error::new(Code::Cancelled, text)))
            }
        }
    }
}

impl Stream {
    /// The first word: where the caller is to speak, and how much.
    async fn say_open(&self, mut headers: HeaderMap) {
        let head = Head {
            allowed: self.windows.1,
            ..Head::new(Kind::Open)
        };
        write(&self.line.marked(head), &mut headers);
        if self.codec != Codec::Json {
            headers.insert(header::CONTENT_TYPE, self.codec.content_type());
        }
        self.line.put(headers, Bytes::new(), true).await;
    }
}

/// A handler that reads while it works: its requests come from the session that waits for its answer.
fn while_requests_come(opening: Opening<'_>) -> Source<'_> {
    let opened = opening.map(|opened| match opened {
        Ok(outbound) if outbound.items => once(Produced::Begun).chain(outbound.source).boxed(),
        Ok(outbound) => outbound.source,
        Err(error) => once(Produced::Failed(Box::new(error))),
    });
    Box::pin(opened.flatten_stream())
}
