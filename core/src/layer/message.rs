//! A call as layers see it.

use super::BoxError;
use crate::wire::context::Extensions;
use crate::wire::error::Error;
use crate::wire::spec::MethodSpec;
use async_nats::{HeaderMap, HeaderName, Subject};
use bytes::Bytes;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower::Service;

/// A request on its way through layers.
///
/// ```
/// use nats_service::layer::Request;
/// use tower::util::MapRequestLayer;
///
/// struct Tenant(String);
/// let tenant = MapRequestLayer::new(|request: Request| {
///     let name = request.header("X-Tenant").unwrap_or("public").to_owned();
///     request.insert(Tenant(name)); // the handler finds it with `ctx.get::<Tenant>()`
///     request
/// });
/// ```
#[derive(Clone)]
pub struct Request {
    /// Its headers. A client's layer may add some; on the service's side the handler's `Context` has what is left of them.
    pub headers: HeaderMap,
    /// The encoded request.
    pub body: Bytes,
    pub(crate) method: &'static MethodSpec,
    /// Where it is sent or was received, which a deployment decides.
    pub(crate) at: Subject,
    pub(crate) received: Instant,
    pub(crate) deadline: Instant,
    pub(crate) extensions: Arc<Extensions>,
    pub(crate) wants: Wants,
}

/// What the innermost end is to do with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wants {
    /// Have it answered.
    Answer,
    /// Have it answered by several instances, so many at most.
    Answers(usize),
    /// Give it back as it is then, for what is opened with it.
    Leave,
}

impl Request {
    /// The endpoint's subject, as the contract has it.
    #[must_use]
    pub fn subject(&self) -> &'static str {
        self.method.subject
    }

    /// The endpoint's name in discovery.
    #[must_use]
    pub fn endpoint(&self) -> &'static str {
        self.method.name
    }

    /// Whether the contract allows the call to happen twice.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.method.idempotent
    }

    /// When the service took it; on the client's side, when it was sent.
    #[must_use]
    pub fn received(&self) -> Instant {
        self.received
    }

    /// When the call's time is up.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How much time is left; zero when it is up.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The first value of this header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let name: HeaderName = name.parse().ok()?;
        self.headers.get(name).map(|value| value.as_str())
    }

    /// Keeps a value with the call, for the layers further in and, through `Context::get`, for the handler.
    pub fn insert<T: Any + Send + Sync>(&self, value: T) {
        self.extensions.insert(Box::new(value));
    }

    /// The latest value of this type that is kept with the call.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.extensions.get()
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and bodies may be secrets.
        f.debug_struct("Request")
            .field("subject", &self.subject())
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A response on its way back through layers.
///
/// It is an answer, or the error of the handler or of the framework. A layer may replace it. What it then is, the caller gets, and what it then is, is stored where the method keeps its
/// answers; one that a layer made itself is not stored, nor is an error.
pub struct Response {
    /// Its headers, without those that the framework writes.
    pub headers: HeaderMap,
    answer: Result<Bytes, Error>,
    /// What the innermost end has to say to the outermost.
    pub(crate) rest: Option<Box<dyn Any + Send>>,
}

impl Response {
    /// An answer of the layer's own: a value in the contract's codec.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            headers: HeaderMap::new(),
            answer: Ok(body.into()),
            rest: None,
        }
    }

    pub(crate) fn of(headers: HeaderMap, answer: Result<Bytes, Error>) -> Self {
        Self {
            headers,
            answer,
            rest: None,
        }
    }

    /// The encoded answer, or the error. The answer is empty where the method gives a `ByteStream` or a stream.
    ///
    /// # Errors
    /// When the call failed, with that error.
    pub fn answer(&self) -> Result<&Bytes, &Error> {
        self.answer.as_ref()
    }

    /// Another encoded answer in its place.
    ///
    /// ```
    /// # use nats_service::{Error, layer::Response};
    /// let mut response = Response::from(Error::not_found("no such word"));
    /// assert!(response.answer().is_err());
    /// response.set_body("\"a default\"");
    /// assert!(matches!(response.answer(), Ok(body) if body == "\"a default\""));
    /// ```
    pub fn set_body(&mut self, body: impl Into<Bytes>) {
        self.answer = Ok(body.into());
    }

    /// A request's leave to go on.
    pub(crate) fn leave(request: Request) -> Self {
        let mut response = Self::new(Bytes::new());
        response.rest = Some(Box::new(request));
        response
    }

    /// The request that has leave to go on, or what a layer said instead.
    pub(crate) fn left(mut self) -> Result<Request, Error> {
        let rest = self.rest.take().map(|rest| rest.downcast::<Request>());
        match (rest, self.answer) {
            (_, Err(error)) => Err(error),
            (Some(Ok(request)), Ok(_)) => Ok(*request),
            _ => Err(Error::internal(
                "a layer gave an answer of its own to a request that opens a stream",
            )),
        }
    }

    pub(crate) fn into_answer(self) -> Result<Bytes, Error> {
        self.answer
    }
}

impl From<Error> for Response {
    fn from(error: Error) -> Self {
        Self::of(HeaderMap::new(), Err(error))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = self.answer.as_ref().map(Bytes::len);
        f.debug_struct("Response")
            .field("answer", &answer)
            .finish_non_exhaustive()
    }
}

/// What the service inside [`Next`](super::Next) has to be: the bounds, said once.
pub trait Bounds:
    Service<Request, Response = Response, Error: Into<BoxError>, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<S> Bounds for S where
    S: Service<Request, Response = Response, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}
