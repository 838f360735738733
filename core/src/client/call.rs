//! One call: what is sent, and what is made of the reply.

use super::ClientCore;
use super::error::CallError;
use super::exchange::{Content, Exchange, Failure, Received};
use super::many::{AsksAll, EveryInstance, Many, OneInstance};
use super::retry::Retry;
use crate::wire::codec::CodecError;
use crate::wire::error::ServiceError;
use crate::wire::header;
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use async_nats::HeaderMap;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
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
    core: ClientCore,
    spec: &'static MethodSpec,
    body: Bytes,
    /// Why it cannot be sent.
    wrong: Option<Box<Failure>>,
    timeout: Duration,
    idempotent: bool,
    /// Instead of the client's.
    retry: Option<Box<Retry>>,
    deadline: Option<Instant>,
    headers: Option<Arc<HeaderMap>>,
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
    pub(super) fn new(
        core: &ClientCore,
        spec: &'static MethodSpec,
        body: Result<Bytes, CodecError>,
    ) -> Self {
        let (body, wrong) = match body {
            Ok(body) => (body, None),
            Err(error) => (Bytes::new(), Some(Box::new(CallError::Encode(error)))),
        };
        Self {
            core: core.clone(),
            spec,
            body,
            wrong,
            timeout: core.timeout.unwrap_or(spec.timeout),
            idempotent: spec.idempotent,
            retry: None,
            deadline: core.deadline,
            headers: core.headers.clone(),
            answer: PhantomData,
        }
    }

    /// How long this call waits for its answer, with all its repeats.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// When this call is repeated, instead of what the client has. See [`Retry`]; it is about calls that may happen twice.
    pub fn retry(mut self, policy: Retry) -> Self {
        self.retry = Some(Box::new(policy));
        self
    }

    /// This call may happen twice, though its method does not say so of all of them.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Waits until then at most, whatever the time-out says: the [deadline](crate::Context::deadline) of the call that is being
    /// served, say. After it nothing is sent.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |other| other.min(deadline)));
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
        match header::checked(name, value) {
            Ok((name, value)) => {
                Arc::make_mut(self.headers.get_or_insert_default()).insert(name, value);
            }
            // The first mistake is told.
            Err(error) => {
                let failure = || Box::new(CallError::Header(error));
                self.wrong.get_or_insert_with(failure);
            }
        }
        self
    }
}

impl<T: DeserializeOwned + 'static, E: ServiceError, R> Call<T, E, R> {
    /// Sends the request, and waits for the answer and what came with it.
    ///
    /// # Errors
    /// The service's own error, or what kept the call from it.
    pub async fn reply(self) -> Result<Reply<T>, CallError<E>> {
        typed(self.exchange().run().await)
    }

    /// Asks every instance of the service, and not just one. The endpoint must have no queue group:
    /// `#[endpoint(queue_group = false)]`. It is asked once, whatever the policy for repeats.
    pub fn many(self) -> Many<T, E>
    where
        R: AsksAll,
    {
        Many::new(self.exchange())
    }

    /// The same call of an endpoint that its *deployment* has taken out of its queue group (`Server::no_queue_group`), which the
    /// contract cannot know.
    pub fn of_every_instance(self) -> Call<T, E, EveryInstance> {
        let Self {
            core,
            spec,
            body,
            wrong,
            timeout,
            idempotent,
            retry,
            deadline,
            headers,
            answer: _,
        } = self;
        Call {
            core,
            spec,
            body,
            wrong,
            timeout,
            idempotent,
            retry,
            deadline,
            headers,
            answer: PhantomData,
        }
    }

    fn exchange(self) -> Exchange {
        let policy = match self.retry {
            Some(policy) => *policy,
            None => self.core.retrying.policy,
        };
        Exchange {
            retry: (self.idempotent && policy.repeats()).then_some(policy),
            core: self.core,
            spec: self.spec,
            body: self.body,
            wrong: self.wrong,
            timeout: self.timeout,
            deadline: self.deadline,
            headers: self.headers,
            streams: ByteStream::is::<T>(),
        }
    }
}

/// Makes of bytes and of errors what the contract says they are.
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
    let value = match content {
        Content::Bytes(body) => codec
            .decode(codec.body_or_unit(&body))
            .map_err(CallError::Decode)?,
        Content::Stream(stream) => match stream.into_answer() {
            Some(value) => value,
            // `exchange` asks for a stream only where `T` is one.
            None => return Err(CallError::Connection("the answer is no stream".into())),
        },
    };
    let (revision, key) = kept(&headers);
    Ok(Reply {
        value,
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

impl<T, E, R> IntoFuture for Call<T, E, R>
where
    T: DeserializeOwned + 'static,
    E: ServiceError,
{
    type Output = Result<T, CallError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let exchange = self.exchange();
        Box::pin(async move { typed(exchange.run().await).map(|reply| reply.value) })
    }
}
