//! What has come and waits for its reader: filled by the session, read by a handler or by a caller.

use super::StreamBreak;
use crate::wire::codec::CodecError;
use crate::wire::error::Error;
use crate::wire::frame::{Amount, PREFIX};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// Why there will be no more.
#[derive(Debug)]
pub(crate) enum Last {
    /// That was all; with the answer, where there is just one.
    End(Bytes),
    Broken(Broken),
}

/// What ended a stream besides its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other side says an error.
    Error(Box<Error>),
    Break(StreamBreak),
    /// An item of ours could not be written.
    Encode(CodecError),
    /// An item of ours is too large.
    TooLarge {
        size: usize,
        max: usize,
    },
}

#[derive(Debug)]
pub(crate) struct Inlet(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Each with what it counts as.
    queue: VecDeque<(Bytes, u64)>,
    last: Option<Last>,
    /// The other side has begun to answer.
    begun: bool,
    read: Amount,
    /// What the session knew of `read` when it last looked.
    seen: Amount,
    /// After so much more the session is to look again.
    step: Amount,
    /// The reader is gone.
    closed: bool,
    /// An item could not be decoded.
    spoilt: Option<Error>,
    reader: Option<Waker>,
    session: Option<Waker>,
}

/// What the session is to know of its reader.
pub(super) struct Look {
    pub(super) read: Amount,
    pub(super) closed: bool,
    pub(super) spoilt: Option<Error>,
}

impl Inlet {
    /// For a window of this size.
    pub(crate) fn new(window: Amount) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            queue: VecDeque::new(),
            last: None,
            begun: false,
            read: Amount::default(),
            seen: Amount::default(),
            step: window.half(),
            closed: false,
            spoilt: None,
            reader: None,
            session: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds what was in a body; `single` where it was the one item.
    pub(super) fn feed(&self, items: Vec<Bytes>, single: bool) {
        let mut state = self.lock();
        state.begun = true;
        if !state.closed {
            let prefix = if single { 0 } else { PREFIX };
            let costs = items.into_iter().map(|item| {
                let cost = (item.len() + prefix) as u64;
                (item, cost)
            });
            state.queue.extend(costs);
        }
        state.wake_reader();
    }

    /// Nothing comes after this. The first that is said stays.
    pub(crate) fn end(&self, last: Last) {
        let mut state = self.lock();
        state.last.get_or_insert(last);
        state.wake_reader();
    }

    /// The session's look; it is woken when there is more to see.
    pub(super) fn look(&self, cx: &mut Context<'_>) -> Look {
        let mut state = self.lock();
        state.seen = state.read;
        match &state.session {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.session = Some(cx.waker().clone()),
        }
        Look {
            read: state.read,
            closed: state.closed,
            spoilt: state.spoilt.take(),
        }
    }

    pub(super) fn read(&self) -> Amount {
        self.lock().read
    }
}

impl State {
    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_session(&mut self) {
        if let Some(waker) = self.session.take() {
            waker.wake();
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) {
        match &self.reader {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.reader = Some(cx.waker().clone()),
        }
    }
}

/// The reading end. Dropping it says that nothing more is wanted.
#[derive(Debug)]
pub(crate) struct Reader(pub(crate) Arc<Inlet>);

impl Reader {
    /// The next item's bytes; `None` when `last` says why there is none.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.0.lock();
        if let Some((item, cost)) = state.queue.pop_front() {
            let one = Amount {
                items: 1,
                bytes: cost,
            };
            state.read = state.read.plus(one);
            let news = state.read.minus(state.seen);
            if news.items >= state.step.items || news.bytes >= state.step.bytes {
                state.wake_session();
            }
            return Poll::Ready(Some(item));
        }
        if state.last.is_some() {
            return Poll::Ready(None);
        }
        state.wait(cx);
        Poll::Pending
    }

    /// Ready when the other side has begun to answer, or has ended.
    pub(crate) fn poll_begun(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.begun || state.last.is_some() {
            return Poll::Ready(());
        }
        state.wait(cx);
        Poll::Pending
    }

    /// What ended it, once, where nothing had come before.
    pub(crate) fn take_last_if_unbegun(&self) -> Option<Last> {
        let mut state = self.0.lock();
        if state.begun { None } else { state.last.take() }
    }

    /// What ended it, once.
    pub(crate) fn take_last(&self) -> Option<Last> {
        self.0.lock().last.take()
    }

    /// Whether the end that was found is the stream's own.
    pub(crate) fn ended_well(&self) -> bool {
        matches!(self.0.lock().last, Some(Last::End(_)))
    }

    /// An item could not be decoded: the session is to say so to the peer.
    pub(crate) fn spoil(&self, error: Error) {
        let mut state = self.0.lock();
        state.spoilt = Some(error);
        state.wake_session();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.queue = VecDeque::new();
        state.wake_session();
    }
}
