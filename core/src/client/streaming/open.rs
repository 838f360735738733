//! Opens a stream: the request, the service's first word, and the task that keeps the stream.

use super::super::ClientCore;
use super::super::error::CallError;
use super::super::exchange::{Failure, call_headers, closed};
use super::super::transport::connection;
use crate::streaming::{
    Broken, Inlet, Last, Line, Mailbox, Pace, Reader, Role, Session, Source, StreamBreak, head,
    is_inbox, write,
};
use crate::telemetry::WatchedCall;
use crate::wire::codec::{Codec, CodecError};
use crate::wire::error::ServiceError;
use crate::wire::error_reply;
use crate::wire::frame::{Amount, Head, Kind};
use crate::wire::header;
use crate::wire::spec::MethodSpec;
use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument as _;

/// What is to be opened.
pub(super) struct Opening {
    pub(super) core: ClientCore,
    pub(super) spec: &'static MethodSpec,
    pub(super) body: Result<Bytes, CodecError>,
    pub(super) timeout: Duration,
    /// How much may be under way to us or unread.
    pub(super) window: Amount,
    pub(super) pace: Pace,
    pub(super) upload: Option<Source<'static>>,
}

/// A stream that is open, on this side. Dropping its reader ends it on both.
pub(super) struct Opened {
    pub(super) reader: Reader,
    pub(super) codec: Codec,
    pub(super) headers: HeaderMap,
    pub(super) subject: Subject,
    pub(super) watched: Option<Box<WatchedCall>>,
}

impl Opened {
    /// The stream ends like this, unless something else is said later.
    pub(super) fn says<E: ServiceError>(&mut self, failure: Option<&CallError<E>>) {
        if let Some(watched) = &mut self.watched {
            watched.says(failure.map(CallError::code));
        }
    }
}

/// What the service's first word says.
struct Welcome {
    peer: Subject,
    allowed: Amount,
    codec: Codec,
    /// The mark of its frames.
    from: u64,
    headers: HeaderMap,
}

impl Opening {
    pub(super) async fn run(self) -> Result<Opened, Failure> {
        let subject = || self.core.subject(self.spec);
        let Some(mut watched) = WatchedCall::begin(self.spec, subject) else {
            return self.run_unwatched().await;
        };
        let span = watched.span().clone();
        match self.run_unwatched().instrument(span).await {
            Ok(opened) => Ok(Opened {
                watched: Some(watched),
                ..opened
            }),
            Err(failure) => {
                watched.says(Some(failure.code()));
                Err(failure)
            }
        }
    }

    async fn run_unwatched(self) -> Result<Opened, Failure> {
        let (subject, mut after) = (self.core.subject(self.spec), self.timeout);
        if let Some(deadline) = self.core.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CallError::Late { subject });
            }
            after = after.min(left);
        }
        let door = Door {
            core: &self.core,
            spec: self.spec,
            subject: &subject,
            codec: self.core.codec(self.spec),
            window: self.window,
            pace: self.pace,
        };
        let body = self.body.map_err(CallError::Encode)?;
        let headers = door.headers(self.core.headers.as_deref(), after);
        let knocked = async {
            #[cfg(feature = "tower")]
            let (headers, body) = match self.core.layers.is_empty() {
                true => (headers, body),
                false => {
                    let leave = self.core.leave_of_layers(self.spec, headers, body, after);
                    leave.await?
                }
            };
            door.knock(headers, body).await
        };
        let (mailbox, welcome) = match tokio::time::timeout(after, knocked).await {
            Ok(opened) => opened?,
            Err(_) => return Err(CallError::Timeout { subject, after }),
        };
        let inlet = Inlet::new(self.window);
        let line = Line {
            outlet: self.core.transport.outlet(),
            peer: welcome.peer,
            own: Subject::from(mailbox.subject.clone()),
            from: 0,
            pace: self.pace,
        };
        let session = Session::new(
            Role::Caller { of: welcome.from },
            line,
            mailbox,
            Arc::clone(&inlet),
            (welcome.allowed, self.window),
            self.upload,
            Arc::default(),
        );
        // The subscription that it hears by lives as long as it does.
        let inbox = Arc::clone(&self.core.streams);
        let reader = Reader(Arc::clone(&inlet));
        let kept = async move {
            keep(session, inlet).await;
            drop(inbox);
        };
        // What the caller's own stream logs belongs to the call.
        tokio::spawn(kept.in_current_span());
        Ok(Opened {
            reader,
            codec: welcome.codec,
            headers: welcome.headers,
            subject,
            watched: None,
        })
    }
}

/// Where a stream is asked for.
struct Door<'d> {
    core: &'d ClientCore,
    spec: &'static MethodSpec,
    subject: &'d Subject,
    codec: Codec,
    window: Amount,
    pace: Pace,
}

impl Door<'_> {
    /// What the request says besides its body.
    fn headers(&self, more: Option<&HeaderMap>, limit: Duration) -> HeaderMap {
        let mut headers = call_headers(self.spec, self.codec, more, limit).unwrap_or_default();
        let head = Head {
            allowed: self.window,
            beat: self.pace.millis(),
            ..Head::new(Kind::Open)
        };
        write(&head, &mut headers);
        headers
    }

    /// Sends the request, and waits for the first word. What comes of it later, when this was given up, is answered with
    /// `cancel` by the inbox, since the mailbox is gone then.
    async fn knock(&self, headers: HeaderMap, body: Bytes) -> Result<(Mailbox, Welcome), Failure> {
        let subject = self.subject.clone();
        let transport = &self.core.transport;
        transport.check(|| subject.clone(), Some(&headers), &body)?;
        let opened = self.core.streams.open(self.window).await;
        let mut mailbox = opened.map_err(connection)?;
        let reply = mailbox.subject.clone().into();
        transport.send(subject, reply, Some(headers), body).await?;
        loop {
            let message = mailbox.next().await.ok_or_else(closed)?;
            if let Some(welcome) = self.welcome(message)? {
                return Ok((mailbox, welcome));
            }
        }
    }

    /// The first word; `None` where the message is none, and means nothing.
    fn welcome(&self, message: Message) -> Result<Option<Welcome>, Failure> {
        let subject = self.subject;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            let subject = subject.clone();
            return Err(CallError::NoResponders { subject });
        }
        let broken = |why| {
            let subject = subject.clone();
            Err(CallError::Broken { subject, why })
        };
        let malformed = |what| broken(StreamBreak::Malformed { what });
        let headers = message.headers.unwrap_or_default();
        let head = head(&headers);
        if let Some(error) = error_reply::read(&headers, &message.payload) {
            return Err(CallError::Service(error));
        }
        match head {
            Some(Head {
                kind: Kind::Open,
                allowed,
                from,
                ..
            }) => {
                let Some(peer) = message.reply.filter(|peer| is_inbox(peer)) else {
                    return malformed("its first message names no inbox to speak to");
                };
                let codec = match headers.get(header::CONTENT_TYPE) {
                    None => Codec::Json,
                    Some(said) => self.said(said.as_str())?,
                };
                Ok(Some(Welcome {
                    peer,
                    allowed,
                    codec,
                    from,
                    headers,
                }))
            }
            Some(Head {
                kind: Kind::Cancel, ..
            }) => broken(StreamBreak::Forgotten),
            Some(_) => Ok(None),
            None => malformed("it answered once, where it was to open a stream"),
        }
    }

    /// What the service's items are written in.
    fn said(&self, said: &str) -> Result<Codec, Failure> {
        let codec = self.codec.or_named(said);
        codec
            .or_else(|| self.spec.codec.or_named(said))
            .ok_or_else(|| CallError::Decode(CodecError::unknown(said, self.codec)))
    }
}

/// Runs the session to its end, however it ends: whoever reads is to hear of it.
async fn keep(mut session: Session<'static>, inlet: Arc<Inlet>) {
    let left = Left(inlet);
    let ended = AssertUnwindSafe(session.run()).catch_unwind().await;
    if ended.is_err() {
        left.0
            .end(Last::Broken(Broken::Break(StreamBreak::Panicked)));
        session.cancel().await;
    }
}

/// Ends the inlet when its session is gone, for a runtime that stops.
struct Left(Arc<Inlet>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.end(Last::Broken(Broken::Break(StreamBreak::Closed)));
    }
}
