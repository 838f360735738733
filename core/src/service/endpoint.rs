//! The loop of one endpoint: takes requests from its subscription, and sees that each of them ends in a reply.
//!
//! A handler that is ready at once costs no task: it is polled in place, and spawned only if it waits. One that computes
//! for long when it is polled would hold the endpoint to one core, so after such a poll the next requests are spawned
//! unpolled, twice as many each time it happens again. A panic is caught where it happens and becomes a reply.
//!
//! What waits is bounded: so many requests run, so many (and so many bytes) wait for their turn, and the rest are refused.

use super::finish::{Panic, Verdict};
use super::invoke::{Endpoint, Serving};
use super::server::Limits;
use crate::wire::error::Error;
use async_nats::{Message, Subject, Subscriber};
use futures_util::future::{FusedFuture, FutureExt as _};
use futures_util::{Stream as _, StreamExt as _};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, ReusableBoxFuture};

/// A handler that kept the loop for longer is spawned the next time. A spawn costs about a microsecond, so this bounds
/// what the in-place poll can lose to a few per cent of what the handler itself costs.
const IN_PLACE: Duration = Duration::from_micros(50);
/// Spawned after the first slow poll, before the next one is tried in place.
const FIRST_DETOUR: u32 = 64;
const LONGEST_DETOUR: u32 = 1 << 16;

/// What the callers are told when a shutdown's time is up.
const STOPPED: &str = "the service stopped before the call had ended";

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
    one_ended: Notify,
}

impl Running {
    fn ended(&self) {
        self.count.fetch_sub(1, Ordering::Release);
        self.one_ended.notify_one();
    }
}

/// Counts a spawned request down, however its task ends.
struct Counted(Arc<Running>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.ended();
    }
}

pub(crate) struct EndpointLoop {
    endpoint: Arc<dyn Endpoint>,
    subscription: Subscriber,
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

/// What the loop woke up for.
enum Event {
    Request(Message),
    Room,
    Stop,
    End,
}

impl EndpointLoop {
    pub(crate) fn new(
        endpoint: Arc<dyn Endpoint>,
        subscription: Subscriber,
        limits: Limits,
        stop: Stop,
    ) -> Self {
        Self {
            endpoint,
            subscription,
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

    /// Runs until the subscription has ended and every request taken from it has.
    pub(crate) async fn run(mut self) {
        let intake = self.stop.intake.clone();
        let mut stopped = pin!(intake.cancelled().fuse());
        loop {
            match self.next_event(stopped.as_mut()).await {
                Event::Request(message) => self.take(message).await,
                Event::Room => self.serve_waiting().await,
                Event::Stop => {
                    let client = &self.endpoint.context().client;
                    super::drain::end_intake(client, &mut self.subscription).await;
                }
                Event::End => break,
            }
        }
        self.finish_what_was_taken().await;
    }

    async fn next_event(&mut self, mut stopped: Pin<&mut impl FusedFuture<Output = ()>>) -> Event {
        // The usual case, and the one that has to be cheap: nobody waits.
        if self.waiting.is_empty() {
            return poll_fn(|cx| match Pin::new(&mut self.subscription).poll_next(cx) {
                Poll::Ready(Some(message)) => Poll::Ready(Event::Request(message)),
                Poll::Ready(None) => Poll::Ready(Event::End),
                Poll::Pending if stopped.is_terminated() => Poll::Pending,
                Poll::Pending => stopped.as_mut().poll(cx).map(|()| Event::Stop),
            })
            .await;
        }
        loop {
            if self.has_room() {
                return Event::Room;
            }
            tokio::select! {
                // An end that came before this line has left its mark: `notify_one` is not lost.
                () = self.running.one_ended.notified() => {}
                message = self.subscription.next() => return message.map_or(Event::End, Event::Request),
                () = &mut stopped, if !stopped.is_terminated() => return Event::Stop,
            }
        }
    }

    fn has_room(&self) -> bool {
        self.running.count.load(Ordering::Acquire) < self.limits.max_in_flight
    }

    async fn take(&mut self, message: Message) {
        let received = Instant::now();
        if let Some(reply) = &message.reply
            && let Err(why) = self.endpoint.context().reply_rule.check(reply)
        {
            self.endpoint.context().forged(reply, why);
            return;
        }
        if self.waiting.is_empty() && self.has_room() {
            self.serve(message, received, received).await;
        } else if self.waiting.len() < self.limits.max_waiting
            && self.waiting_bytes + message.length <= self.limits.max_waiting_bytes
        {
            self.waiting_bytes += message.length;
            self.waiting.push_back((message, received));
        } else {
            self.endpoint.context().shed(message.reply, received).await;
        }
    }

    async fn serve_waiting(&mut self) {
        if let Some((message, received)) = self.waiting.pop_front() {
            self.waiting_bytes -= message.length;
            let now = Instant::now();
            let context = self.endpoint.context();
            let error = if self.stop.running.is_cancelled() {
                Error::unavailable(STOPPED)
            } else if now - received < context.spec.timeout {
                return self.serve(message, received, now).await;
            } else {
                // Its caller has gone: nobody would read what the handler answers.
                Error::deadline_exceeded(format!(
                    "{}: waited too long for its turn",
                    context.spec.subject
                ))
            };
            let verdict = context.refuse(message.reply, error).await;
            context.count(&verdict, now - received);
        }
    }

    /// Serves a request that was `received` then, and whose turn it is `now`.
    async fn serve(&mut self, message: Message, received: Instant, now: Instant) {
        let reply = message.reply.clone();
        Arc::clone(&self.endpoint).begin(message, received, &mut self.slot);
        if self.detour > 0 {
            self.detour -= 1;
            self.spawn(reply, received);
            return;
        }
        let polled = poll_fn(|cx| {
            Poll::Ready(std::panic::catch_unwind(AssertUnwindSafe(|| {
                self.slot.poll(cx)
            })))
        })
        .await;
        let end = Instant::now();
        let took = end - received;
        match polled {
            Ok(Poll::Ready(verdict)) => self.endpoint.context().count(&verdict, took),
            Ok(Poll::Pending) => self.spawn(reply, received),
            Err(panic) => {
                self.slot = idle();
                self.endpoint
                    .context()
                    .panicked(reply, panic.into(), took)
                    .await;
            }
        }
        if end - now > IN_PLACE {
            self.detour = self.next_detour;
            self.next_detour = (self.next_detour * 2).min(LONGEST_DETOUR);
        } else {
            self.next_detour = FIRST_DETOUR;
        }
    }

    /// Lets the request in the slot go on in a task of its own.
    fn spawn(&mut self, reply: Option<Subject>, received: Instant) {
        let serving = std::mem::replace(&mut self.slot, idle());
        self.running.count.fetch_add(1, Ordering::AcqRel);
        let counted = Counted(Arc::clone(&self.running));
        let endpoint = Arc::clone(&self.endpoint);
        let stop = self.stop.running.clone();
        tokio::spawn(async move {
            let _counted = counted;
            serve_in_task(&*endpoint, serving, reply, received, stop).await;
        });
    }

    async fn finish_what_was_taken(&mut self) {
        loop {
            if !self.waiting.is_empty() {
                if self.has_room() {
                    self.serve_waiting().await;
                    continue;
                }
            } else if self.running.count.load(Ordering::Acquire) == 0 {
                return;
            }
            self.running.one_ended.notified().await;
        }
    }
}

async fn serve_in_task(
    endpoint: &dyn Endpoint,
    mut serving: Serving,
    reply: Option<Subject>,
    received: Instant,
    stop: CancellationToken,
) {
    let context = endpoint.context();
    let limit = tokio::time::sleep_until((received + context.spec.timeout).into());
    let mut limit = pin!(limit);
    let mut stopped = pin!(stop.cancelled());
    let ended = poll_fn(|cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| serving.poll(cx))) {
            Ok(Poll::Ready(verdict)) => return Poll::Ready(Ok(Ok(verdict))),
            Ok(Poll::Pending) => {}
            Err(panic) => return Poll::Ready(Ok(Err(Panic::from(panic)))),
        }
        if limit.as_mut().poll(cx).is_ready() {
            let text = format!(
                "{} took longer than {:?}",
                context.spec.subject, context.spec.timeout
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
        Ok(Ok(verdict)) => context.count(&verdict, received.elapsed()),
        Ok(Err(panic)) => context.panicked(reply, panic, received.elapsed()).await,
        Err(error) => {
            // Dropped first: whoever reads the reply may rely on the handler having ended.
            drop(serving);
            let verdict: Verdict = context.refuse(reply, error).await;
            context.count(&verdict, received.elapsed());
        }
    }
}

fn idle() -> Serving {
    ReusableBoxFuture::new(std::future::ready(None))
}
