//! One call: what is sent, and what is made of the reply.

use super::error::CallError;
use super::exchange::{Content, Exchange, Exchanging, Failure, Received};
use super::many::{AsksAll, EveryInstance, Many, OneInstance};
use super::retry::Retry;
use super::transport::connection;
use crate::wire::codec::{Codec, CodecError, decoded};
use crate::wire::error::ServiceError;
use crate::wire::header;
use async_nats::HeaderMap;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A call that is ready to be sent: await it for its answer, or [`reply`](Call::reply) for what came with it.
///
/// ```no_run
/// # use nats_service::nats_service;
/// # #[nats_service] pub trait Greeter { async fn hello(&self, name: String) -> String; }
/// # async fn run(greeter: GreeterClient) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// let text = greeter.hello("Ada".to_string()).timeout(Duration::from_millis(200)).await?;
/// # Ok(()) }
/// ```
///
/// `R` says who gets it: one instance of the service, or, where the endpoint has no queue group, [every one](Call::many).
#[must_use = "a call does nothing until it is awaited"]
#[derive(Debug)]
pub struct Call<T, E, R = OneInstance> {
    exchange: Exchange,
    answer: PhantomData<Typed<T, E, R>>,
}

/// What a call is of, and holds no value of.
type Typed<T, E, R> = fn() -> (T, E, R);

/// An answer, and what came with it.
///
/// ```no_run
/// # use nats_service::nats_service;
/// # #[nats_service] pub trait Greeter { async fn hello(&self, name: String) -> String; }
/// # async fn run(greeter: GreeterClient) -> Result<(), Box<dyn std::error::Error>> {
/// let reply = greeter.hello("Ada".to_string()).reply().await?;
/// println!("{} (revision {:?} of {:?})", reply.value, reply.revision, reply.key);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reply<T> {
    /// The answer.
    pub value: T,
    /// The revision at which the answer is stored, where the method writes before it replies.
    pub revision: Option<u64>,
    /// The key under which it is stored, where the method writes before it replies, or the name of the object that holds it.
    /// Of several stores it is the one with the revision. `None` from a cache, whose caller has asked by the key, and from
    /// services of older versions.
    pub key: Option<String>,
    /// The reply's headers.
    pub headers: HeaderMap,
    /// How often the request was sent: more than once only where it may happen twice, see [`Retry`].
    pub attempts: u32,
}

impl<T, E, R> Call<T, E, R> {
    pub(super) fn new(exchange: Exchange) -> Self {
        Self {
            exchange,
            answer: PhantomData,
        }
    }

    /// How long this call waits for its answer, with all its repeats.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.exchange.timeout = timeout;
        self
    }

    /// When this call is repeated, instead of what the client has. See [`Retry`]; it is about calls that may happen twice.
    pub fn retry(mut self, policy: Retry) -> Self {
        self.exchange.retry = Some(Box::new(policy));
        self
    }

    /// This call may happen twice, though its method does not say so of all of them.
    pub fn idempotent(mut self) -> Self {
        self.exchange.idempotent = true;
        self
    }

    /// Waits until then at most, whatever the time-out says: the [deadline](crate::Context::deadline) of the call that is being
    /// served, say. After it nothing is sent.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        let sooner = |other: Instant| other.min(deadline);
        self.exchange.deadline = Some(self.exchange.deadline.map_or(deadline, sooner));
        self
    }

    /// Sends a header along; it replaces the client's own of that name. One that cannot be sent makes the call fail.
    ///
    /// ```no_run
    /// # use nats_service::nats_service;
    /// # #[nats_service] pub trait Greeter { async fn hello(&self, name: String) -> String; }
    /// # async fn run(greeter: GreeterClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let text = greeter.hello("Ada".to_string()).header("X-Tenant", "acme").await?;
    /// # Ok(()) }
    /// ```
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.exchange.header(name, value);
        self
    }
}

impl<T: DeserializeOwned + 'static, E: ServiceError, R> Call<T, E, R> {
    /// Sends the request, and waits for the answer and what came with it.
    ///
    /// # Errors
    /// The service's own error, or what kept the call from it.
    pub async fn reply(self) -> Result<Reply<T>, CallError<E>> {
        typed(self.exchange.run().await)
    }

    /// Asks every instance of the service, and not just one. The endpoint must have no queue group:
    /// `#[endpoint(queue_group = false)]`. It is asked once, whatever the policy for repeats.
    pub fn many(self) -> Many<T, E>
    where
        R: AsksAll,
    {
        Many::new(self.exchange)
    }

    /// The same call of an endpoint that its *deployment* has taken out of its queue group (`Server::no_queue_group`), which the
    /// contract cannot know.
    pub fn of_every_instance(self) -> Call<T, E, EveryInstance> {
        Call {
            exchange: self.exchange,
            answer: PhantomData,
        }
    }
}

/// The future of a [`Call`]: what it sends and gets is the same for every method, and it is typed at the end alone.
#[must_use = "a call does nothing until it is awaited"]
pub struct CallFuture<T, E> {
    exchanging: Exchanging,
    answer: PhantomData<fn() -> (T, E)>,
}

impl<T, E> CallFuture<T, E> {
    pub(super) fn new(exchanging: Exchanging) -> Self {
        Self {
            exchanging,
            answer: PhantomData,
        }
    }
}

impl<T, E> fmt::Debug for CallFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + 'static, E: ServiceError> Future for CallFuture<T, E> {
    type Output = Result<T, CallError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = None;
        match poll_into(&mut self.exchanging, cx, &mut answer) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(decoded(answer))),
            Poll::Ready(Err(failure)) => Poll::Ready(Err(CallError::of_reply(failure))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T, E, R> IntoFuture for Call<T, E, R>
where
    T: DeserializeOwned + 'static,
    E: ServiceError,
{
    type Output = Result<T, CallError<E>>;
    type IntoFuture = CallFuture<T, E>;

    fn into_future(self) -> Self::IntoFuture {
        CallFuture::new(self.exchange.run())
    }
}

/// The place of an answer, whatever its type.
trait Answer {
    fn decode(&mut self, codec: Codec, body: &[u8]) -> Result<(), CodecError>;
    fn any(&mut self) -> &mut dyn Any;
}

impl<T: DeserializeOwned + 'static> Answer for Option<T> {
    fn decode(&mut self, codec: Codec, body: &[u8]) -> Result<(), CodecError> {
        codec.decode_into(body, self)
    }

    fn any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Takes the answer out of what came.
fn read(content: Content, codec: Codec, answer: &mut dyn Answer) -> Result<(), Failure> {
    match content {
        Content::Bytes(body) => answer
            .decode(codec, codec.body_or_unit(&body))
            .map_err(CallError::Decode),
        // `Exchange` asks for a stream only where the answer is one.
        Content::Stream(stream) => match stream.put_into(answer.any()) {
            true => Ok(()),
            false => Err(connection("the answer is no stream")),
        },
    }
}

/// Goes on, and puts the answer there when it has come.
fn poll_into(
    exchanging: &mut Exchanging,
    cx: &mut Context<'_>,
    answer: &mut dyn Answer,
) -> Poll<Result<(), Failure>> {
    let received = match exchanging.as_mut().poll(cx) {
        Poll::Ready(received) => received,
        Poll::Pending => return Poll::Pending,
    };
    Poll::Ready(received.and_then(|received| read(received.content, received.codec, answer)))
}

/// Makes of bytes and of errors what the contract says they are, with what came along.
pub(super) fn typed<T, E>(received: Result<Received, Failure>) -> Result<Reply<T>, CallError<E>>
where
    T: DeserializeOwned + 'static,
    E: ServiceError,
{
    let Received {
        codec,
        headers,
        content,
        attempts,
    } = received.map_err(CallError::of_reply)?;
    let mut answer = None;
    read(content, codec, &mut answer).map_err(CallError::of_reply)?;
    let (revision, key) = kept(&headers);
    Ok(Reply {
        value: decoded(answer),
        revision,
        key,
        headers,
        attempts,
    })
}

/// The revision and the key of an answer that was stored before its reply. An object's name is in the reference to it, too.
fn kept(headers: &HeaderMap) -> (Option<u64>, Option<String>) {
    let said = |name| header::said(headers, name);
    let revision = said(header::REVISION).and_then(|revision| revision.parse().ok());
    let key = said(header::KEY).or_else(|| Some(said(header::OBJECT)?.split_once('/')?.1));
    (revision, key.map(str::to_owned))
}
