//! One question to every instance of a service: the answers as they come.
//!
//! Only an endpoint without a queue group has several to give. Which those are, the type of the call says.

use super::call::{Reply, typed};
use super::error::CallError;
use super::exchange::{Exchange, Failure, Received, closed, nobody_listens};
use crate::telemetry::WatchedCall;
use crate::wire::error::{Error, ServiceError};
use crate::wire::header;
use crate::wire::moment::bounded;
use crate::wire::replies::Several;
use async_nats::Message;
use futures_util::Stream;
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span};

/// Every instance gets the requests of this endpoint: it has no queue group.
#[derive(Debug)]
pub enum EveryInstance {}

/// One of the instances gets a request of this endpoint.
#[derive(Debug)]
pub enum OneInstance {}

/// What [`Call::many`](crate::Call::many) asks of an endpoint.
#[diagnostic::on_unimplemented(
    message = "this endpoint has a queue group, so one of its instances answers, and the others are not asked",
    label = "there is one answer to this call",
    note = "let every instance get the requests of this method: `#[endpoint(queue_group = false)]`"
)]
pub trait AsksAll {}

impl AsksAll for EveryInstance {}

/// A question to every instance that is ready to be sent: await it for all answers, or [`stream`](Many::stream) for each as it
/// comes.
///
/// How many instances there are, nobody knows. So the answers end with the first of these: so many as
/// [`most`](Many::most) says, no further one for as long as [`stall`](Many::stall) says, the call's time-out.
///
/// ```no_run
/// # use nats_service::nats_service;
/// # use std::time::Duration;
/// #[nats_service]
/// trait Caches {
///     #[endpoint(queue_group = false)]
///     async fn size(&self) -> u64;
/// }
///
/// # async fn run(caches: CachesClient) -> Result<(), Box<dyn std::error::Error>> {
/// let mut total = 0;
/// for answer in caches.size().many().stall(Duration::from_millis(200)).await? {
///     println!("{:?}: {:?}", answer.instance, answer.result);
///     total += answer.result.map_or(0, |reply| reply.value);
/// }
/// # Ok(()) }
/// ```
#[must_use = "a question is not asked until it is awaited"]
pub struct Many<T, E> {
    exchange: Exchange,
    most: usize,
    stall: Duration,
    answer: PhantomData<fn() -> (T, E)>,
}

/// What one instance answered.
#[derive(Debug)]
#[non_exhaustive]
pub struct InstanceAnswer<T, E> {
    /// The instance's id, as discovery has it; `None` where the service does not say (another framework's).
    pub instance: Option<String>,
    /// Its answer, or its error.
    pub result: Result<Reply<T>, CallError<E>>,
}

/// The answers of several instances, as they come; see [`Many`].
pub struct Answers<T, E> {
    answers: BoxStream<'static, InstanceAnswer<T, E>>,
}

impl<T, E> fmt::Debug for Many<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Many")
            .field("subject", &self.exchange.subject())
            .field("most", &self.most)
            .field("stall", &self.stall)
            .finish_non_exhaustive()
    }
}

impl<T, E> fmt::Debug for Answers<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl<T, E> Many<T, E> {
    pub(super) fn new(exchange: Exchange) -> Self {
        Self {
            exchange,
            most: 1_000,
            stall: Duration::from_millis(500),
            answer: PhantomData,
        }
    }

    /// No more answers than these (1,000). More than that are not kept.
    pub fn most(mut self, answers: usize) -> Self {
        self.most = answers.max(1);
        self
    }

    /// How long after one answer the next may come (500 ms). The first one may take as long as the call.
    pub fn stall(mut self, pause: Duration) -> Self {
        self.stall = pause;
        self
    }
}

impl<T: DeserializeOwned + 'static, E: ServiceError> Many<T, E> {
    /// Asks, waits for the first answer, and gives the answers as they come.
    ///
    /// # Errors
    /// When the question was not asked, nobody listens, or no answer came within the call's time-out. What an instance
    /// answers is in the stream, errors too.
    pub async fn stream(self) -> Result<Answers<T, E>, CallError<E>> {
        let asked = Asked::new(self.exchange, self.most, self.stall).await;
        let asked = asked.map_err(CallError::of_reply)?;
        let answers = asked.answers().map(|(instance, received)| InstanceAnswer {
            instance,
            result: typed(received),
        });
        Ok(Answers {
            answers: answers.boxed(),
        })
    }
}

impl<T: DeserializeOwned + Send + 'static, E: ServiceError> IntoFuture for Many<T, E> {
    type Output = Result<Vec<InstanceAnswer<T, E>>, CallError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.stream().await?.collect().await) })
    }
}

impl<T, E> Stream for Answers<T, E> {
    type Item = InstanceAnswer<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.poll_next_unpin(cx)
    }
}

/// A question that is asked, and has an answer already: the same for every type.
struct Asked {
    exchange: Exchange,
    /// `None` when a layer has answered by itself.
    replies: Option<Several>,
    /// The answer that came first, until it is given out.
    first: Option<Message>,
    left: usize,
    stall: Duration,
    deadline: Instant,
    watched: Option<Box<WatchedCall>>,
}

type Given = (Option<String>, Result<Received, Failure>);

impl Asked {
    async fn new(exchange: Exchange, most: usize, stall: Duration) -> Result<Self, Failure> {
        let Some(mut watched) = WatchedCall::begin(exchange.spec, || exchange.subject()) else {
            return Self::new_unwatched(exchange, most, stall).await;
        };
        let span = watched.span().clone();
        let asked = Self::new_unwatched(exchange, most, stall);
        let asked = asked.instrument(span).await;
        watched.says(asked.as_ref().err().map(CallError::code));
        asked.map(|asked| Self {
            watched: Some(watched),
            ..asked
        })
    }

    async fn new_unwatched(
        mut exchange: Exchange,
        most: usize,
        stall: Duration,
    ) -> Result<Self, Failure> {
        exchange.begin()?;
        let (subject, after) = (exchange.subject(), exchange.timeout);
        let deadline = Instant::now() + bounded(after);
        let asked = timeout_at(deadline, async {
            let transport = &exchange.core.transport;
            let headers = exchange.request_headers(after)?;
            #[cfg(feature = "tower")]
            if !exchange.core.layers.is_empty() {
                let wants = crate::layer::Wants::Answers(most);
                return exchange.through_layers(headers, after, wants).await;
            }
            let (mut replies, inbox) = transport.several(most).await?;
            transport
                .send(subject.clone(), inbox, headers, exchange.body.clone())
                .await?;
            let first = replies.next().await.ok_or_else(closed)?;
            if nobody_listens(&first) {
                let subject = subject.clone();
                return Err(CallError::NoResponders { subject });
            }
            Ok((first, Some(replies)))
        });
        let Ok(asked) = asked.await else {
            return Err(CallError::Timeout { subject, after });
        };
        let (first, replies) = asked?;
        Ok(Self {
            exchange,
            replies,
            first: Some(first),
            left: most,
            stall,
            deadline,
            watched: None,
        })
    }

    fn answers(self) -> impl Stream<Item = Given> + Send + 'static {
        unfold(self, |mut asked| async move {
            let given = asked.next().await?;
            Some((given, asked))
        })
    }

    async fn next(&mut self) -> Option<Given> {
        self.left = self.left.checked_sub(1)?;
        let message = match self.first.take() {
            Some(first) => first,
            None => {
                let until = self.deadline.min(Instant::now() + bounded(self.stall));
                let replies = self.replies.as_mut()?;
                timeout_at(until, replies.next()).await.ok()??
            }
        };
        let headers = message.headers.as_ref();
        let instance = headers.and_then(|headers| headers.get(header::INSTANCE));
        let instance = instance.map(|id| id.as_str().to_owned());
        // A large answer is fetched from its object.
        let span = self.watched.as_ref().map(|watched| watched.span().clone());
        let read = self.exchange.read(message);
        let read = read.instrument(span.unwrap_or_else(Span::none));
        let received = match timeout_at(self.deadline, read).await {
            Ok(received) => received,
            Err(_) => Err(CallError::<Error>::Timeout {
                subject: self.exchange.subject(),
                after: self.exchange.timeout,
            }),
        };
        Some((instance, received))
    }
}
