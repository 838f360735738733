//! The loop of one endpoint: takes requests from its subscription, and sees that each of them ends in a reply.
//!
//! A handler that is ready at once costs no task: it is polled in place, and spawned only if it waits. One that computes
//! for long when it is polled would hold the endpoint to one core, so after such a poll the next requests are spawned
//! unpolled, twice as many each time it happens again. A panic is caught where it happens and becomes a reply.
//!
//! What waits is bounded: so many requests run, so many (and so many bytes) wait for their turn, and the rest are refused.

use super::finish::{Panic, Verdict};
use super::intake::Intake;
use super::invoke::{Endpoint, Serving};
use crate::telemetry;
use crate::wire::error::{Code, Error};
use crate::wire::spec::MethodSpec;
use crate::wire::spec::StreamMode;
use async_nats::{Message, Subject};
use futures_util::future::{FusedFuture, FutureExt as _};
use futures_util::task::AtomicWaker;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};
use tracing::Span;

/// A handler that kept the loop for longer is spawned the next time. A spawn costs about a microsecond, so this bounds
/// what the in-place poll can lose to a few per cent of what the handler itself costs.
const IN_PLACE: Duration = Duration::from_micros(50);
/// Spawned after the first slow poll, before the next one is tried in place. One, since a poll may also be slow because the
/// thread lost its core for a moment; a handler that computes is slow again, and gets there by doubling.
const FIRST_DETOUR: u32 = 1;
const LONGEST_DETOUR: u32 = 1 << 16;

/// Far enough for a stream, and near enough to be reckoned with.
pub(super) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the callers are told when a shutdown's time is up.
const STOPPED: &str = "the service stopped before the call had ended";

/// How much an endpoint holds at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_in_flight: usize,
    pub(crate) max_waiting: usize,
    pub(crate) max_waiting_bytes: usize,
    pub(crate) patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: 1024,
            max_waiting: 4096,
            max_waiting_bytes: 16 << 20,
            patience: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// What a method says of itself counts more than what the server says of all.
    pub(crate) fn of(self, method: &MethodSpec) -> Self {
        Self {
            max_in_flight: method.max_in_flight.unwrap_or(self.max_in_flight),
            max_waiting: method.max_waiting.unwrap_or(self.max_waiting),
            max_waiting_bytes: method.max_waiting_bytes.unwrap_or(self.max_waiting_bytes),
            patience: self.patience,
        }
    }
}

/// What tells an endpoint to stop: first to take no more, then, when time is up, to end what still runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    pub(crate) intake: CancellationToken,
    pub(crate) running: CancellationToken,
    pub(crate) discovery: CancellationToken,
}

/// Requests that run in tasks of their own.
#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    /// The loop, when it waits for one of them to end.
    waker: AtomicWaker,
}

/// Counts a spawned request down, however its task ends.
struct Counted {
    running: Arc<Running>,
    endpoint: Arc<dyn Endpoint>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.endpoint.context().metrics.waits_no_more();
        self.running.count.fetch_sub(1, Ordering::AcqRel);
        self.running.waker.wake();
    }
}

pub(crate) struct EndpointLoop {
    endpoint: Arc<dyn Endpoint>,
    intake: Intake,
    /// Nothing comes from it any more.
    ended: bool,
    limits: Limits,
    stop: Stop,
    slot: Serving,
    running: Arc<Running>,
    waiting: VecDeque<(Message, Instant)>,
    waiting_bytes: usize,
    /// Requests that are still to be spawned unpolled.
    detour: u32,
    next_detour: u32,
}

/// What the loop has to wait for.
enum Event {
    Unserved(Unserved),
    Stop,
    End,
}

/// A request that did not get as far as an answer of its own.
struct Unserved {
    reply: Option<Subject>,
    received: Instant,
    why: Why,
}

enum Why {
    Shed,
    Late,
    Stopped,
    Panicked(Panic),
}

impl EndpointLoop {
    pub(crate) fn new(
        endpoint: Arc<dyn Endpoint>,
        intake: Intake,
        limits: Limits,
        stop: Stop,
    ) -> Self {
        Self {
            endpoint,
            intake,
            ended: false,
            limits,
            stop,
            slot: idle(),
            running: Arc::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            detour: 0,
            next_detour: FIRST_DETOUR,
        }
    }

    /// Runs until the intake has ended and every request taken from it has.
    pub(crate) async fn run(mut self) {
        let intake = self.stop.intake.clone();
        let mut stopped = pin!(intake.cancelled().fuse());
        loop {
            match poll_fn(|cx| self.poll(stopped.as_mut(), cx)).await {
                Event::Unserved(unserved) => self.answer_instead(unserved).await,
                Event::Stop => self.intake.end().await,
                Event::End => return,
            }
        }
    }

    /// Serves what is there. All of it happens in this one poll: a request that is moved through a chain of futures is
    /// copied at every link of it.
    fn poll(
        &mut self,
        mut stopped: Pin<&mut impl FusedFuture<Output = ()>>,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        loop {
            while self.has_room()
                && let Some((message, received)) = self.waiting.pop_front()
            {
                self.waiting_bytes -= message.length;
                if let Some(unserved) = self.serve_waiting(message, received, cx) {
                    return Poll::Ready(Event::Unserved(unserved));
                }
            }
            if self.ended {
                break;
            }
            match self.intake.poll_next(cx) {
                Poll::Ready(Some(message)) => {
                    if let Some(unserved) = self.take(message, cx) {
                        return Poll::Ready(Event::Unserved(unserved));
                    }
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        if !self.ended && !stopped.is_terminated() && stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Stop);
        }
        if self.ended || !self.waiting.is_empty() {
            self.running.waker.register(cx.waker());
            if self.ended && self.waiting.is_empty() && self.count() == 0 {
                return Poll::Ready(Event::End);
            }
            if self.has_room() && !self.waiting.is_empty() {
                // One ended before the waker was there.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn count(&self) -> usize {
        self.running.count.load(Ordering::Acquire)
    }

    fn has_room(&self) -> bool {
        self.count() < self.limits.max_in_flight
    }

    fn take(&mut self, message: Message, cx: &mut Context<'_>) -> Option<Unserved> {
        let received = Instant::now();
        if let Some(reply) = &message.reply
            && let Err(why) = self.endpoint.context().reply_rule.check(reply)
        {
            self.endpoint.context().forged(reply, why);
            return None;
        }
        if self.waiting.is_empty() && self.has_room() {
            return self.serve(message, received, received, cx);
        }
        if self.waiting.len() < self.limits.max_waiting
            && self.waiting_bytes + message.length <= self.limits.max_waiting_bytes
        {
            self.waiting_bytes += message.length;
            self.waiting.push_back((message, received));
            return None;
        }
        Some(Unserved {
            reply: message.reply,
            received,
            why: Why::Shed,
        })
    }

    fn serve_waiting(
        &mut self,
        message: Message,
        received: Instant,
        cx: &mut Context<'_>,
    ) -> Option<Unserved> {
        let now = Instant::now();
        if self.stop.running.is_cancelled() {
            return Some(Unserved {
                reply: message.reply,
                received,
                why: Why::Stopped,
            });
        }
        self.serve(message, received, now, cx)
    }

    /// Serves a request that was `received` then, and whose turn it is `now`.
    fn serve(
        &mut self,
        message: Message,
        received: Instant,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Option<Unserved> {
        let deadline = self.endpoint.context().deadline(&message, received);
        if now >= deadline {
            // Its caller has gone: nobody would read what the handler answers.
            return Some(Unserved {
                reply: message.reply,
                received,
                why: Why::Late,
            });
        }
        let reply = message.reply.clone();
        let span = self.endpoint.context().span(&message);
        Arc::clone(&self.endpoint).begin(message, received, deadline, &mut self.slot);
        if self.detour > 0 {
            self.detour -= 1;
            self.spawn(reply, received, deadline, span);
            return None;
        }
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let _inside = span.enter();
            self.slot.poll(cx)
        }));
        let end = Instant::now();
        if end - now > IN_PLACE {
            self.detour = self.next_detour;
            self.next_detour = (self.next_detour * 2).min(LONGEST_DETOUR);
        } else {
            self.next_detour = FIRST_DETOUR;
        }
        match polled {
            Ok(Poll::Ready(verdict)) => {
                let context = self.endpoint.context();
                context.count(&verdict, end - received, &span);
            }
            Ok(Poll::Pending) => self.spawn(reply, received, deadline, span),
            Err(panic) => {
                telemetry::ended(&span, Some(Code::Internal));
                self.slot = idle();
                return Some(Unserved {
                    reply,
                    received,
                    why: Why::Panicked(panic.into()),
                });
            }
        }
        None
    }

    /// Lets the request in the slot go on in a task of its own.
    fn spawn(&mut self, reply: Option<Subject>, received: Instant, deadline: Instant, span: Span) {
        let serving = std::mem::replace(&mut self.slot, idle());
        self.running.count.fetch_add(1, Ordering::AcqRel);
        self.endpoint.context().metrics.waits();
        let counted = Counted {
            running: Arc::clone(&self.running),
            endpoint: Arc::clone(&self.endpoint),
        };
        let stop = self.stop.running.clone();
        tokio::spawn(async move {
            let endpoint = &*counted.endpoint;
            serve_in_task(endpoint, serving, reply, received, deadline, stop, span).await;
        });
    }

    /// Waits until the reply is on its way, and takes no further request meanwhile: a connection that is full must not
    /// make refusals pile up.
    async fn answer_instead(&self, unserved: Unserved) {
        let Unserved {
            reply,
            received,
            why,
        } = unserved;
        let context = self.endpoint.context();
        let error = match why {
            Why::Shed => return context.shed(reply, received).await,
            Why::Panicked(panic) => {
                return context.panicked(reply, panic, received.elapsed()).await;
            }
            Why::Stopped => Error::unavailable(STOPPED),
            Why::Late => Error::deadline_exceeded(format!(
                "{}: waited too long for its turn",
                context.spec.subject
            )),
        };
        let verdict = context.refuse(reply, error).await;
        context.count(&verdict, received.elapsed(), &Span::none());
    }
}

async fn serve_in_task(
    endpoint: &dyn Endpoint,
    mut serving: Serving,
    reply: Option<Subject>,
    received: Instant,
    deadline: Instant,
    stop: CancellationToken,
    span: Span,
) {
    let context = endpoint.context();
    // A stream's own rules end it: its time-out is for its beginning.
    let limit = match context.spec.stream {
        StreamMode::None => deadline,
        _ => received + FOREVER,
    };
    let limit = tokio::time::sleep_until(limit.into());
    let mut limit = pin!(limit);
    let mut stopped = pin!(stop.cancelled());
    let ended = poll_fn(|cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| span.in_scope(|| serving.poll(cx)))) {
            Ok(Poll::Ready(verdict)) => return Poll::Ready(Ok(Ok(verdict))),
            Ok(Poll::Pending) => {}
            Err(panic) => return Poll::Ready(Ok(Err(Panic::from(panic)))),
        }
        if limit.as_mut().poll(cx).is_ready() {
            let text = format!(
                "{} took longer than {:?}",
                context.spec.subject,
                deadline - received
            );
            return Poll::Ready(Err(Error::deadline_exceeded(text)));
        }
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Error::unavailable(STOPPED)));
        }
        Poll::Pending
    })
    .await;
    match ended {
        Ok(Ok(verdict)) => context.count(&verdict, received.elapsed(), &span),
        Ok(Err(panic)) => {
            telemetry::ended(&span, Some(Code::Internal));
            context.panicked(reply, panic, received.elapsed()).await;
        }
        Err(error) => {
            // Dropped first: whoever reads the reply may rely on the handler having ended.
            drop(serving);
            let verdict: Verdict = context.refuse(reply, error).await;
            context.count(&verdict, received.elapsed(), &span);
        }
    }
}

fn idle() -> Serving {
    ReusableBoxFuture::new(std::future::ready(None))
}
