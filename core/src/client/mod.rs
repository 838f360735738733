//! The calling side: request, deadline, error mapping.

use crate::__private::Method;
use crate::store::StoreError;
use async_nats::jetstream::Context;
use serde::Serialize;
use std::marker::PhantomData;
use std::time::Duration;

/// What every generated client is made of.
#[derive(Debug, Clone)]
pub struct ClientCore {
    _nats: async_nats::Client,
    js: Option<Context>,
}

impl ClientCore {
    /// On this connection.
    pub fn new(nats: async_nats::Client) -> Self {
        Self {
            _nats: nats,
            js: None,
        }
    }
    /// With stores.
    #[must_use]
    pub fn with_jetstream(mut self, js: Context) -> Self {
        self.js = Some(js);
        self
    }
    /// For every call, instead of what the trait says.
    #[must_use]
    pub fn with_timeout(self, _timeout: Duration) -> Self {
        self
    }
    /// The context, if there is one.
    pub fn jetstream(&self) -> Result<Context, StoreError> {
        self.js.clone().ok_or(StoreError::NoJetStream)
    }
    /// Prepares a call; the body is encoded at once.
    pub fn call<M: Method, B: Serialize + ?Sized>(&self, _body: &B) -> Call<M::Answer, M::Error> {
        Call {
            marker: PhantomData,
        }
    }
}

/// A call that is ready to be sent: await it.
#[must_use = "a call does nothing until it is awaited"]
#[derive(Debug)]
pub struct Call<T, E> {
    marker: PhantomData<fn() -> (T, E)>,
}

/// Why a call did not bring an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E = std::convert::Infallible> {
    /// The service's own error.
    #[error("{0}")]
    Service(E),
}

impl<T, E> IntoFuture for Call<T, E> {
    type Output = Result<T, CallError<E>>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;
    fn into_future(self) -> Self::IntoFuture {
        unimplemented!()
    }
}
