//! The service that a layer is put around, with its type erased: whatever lies further in.

use super::message::Bounds;
use super::{BoxError, Request, Response};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tower::Service;

/// What is inside a layer: more layers, and at last the handler, or the connection. A `tower::Service<Request>`.
///
/// Every request gets a clone of its own, and waits for it to be ready: what a layer bounds together (a concurrency limit),
/// its clones share.
pub struct Next(Box<dyn Erased>);

pub(crate) type Answered = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

trait Erased: Send {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;
    fn call(&mut self, request: Request) -> Answered;
    fn copy(&self) -> Box<dyn Erased>;
}

struct Typed<S>(S);

impl<S: Bounds> Erased for Typed<S> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Answered {
        let answered = self.0.call(request);
        Box::pin(async move { answered.await.map_err(Into::into) })
    }

    fn copy(&self) -> Box<dyn Erased> {
        Box::new(Typed(self.0.clone()))
    }
}

/// The innermost one, which is always ready.
struct End<F>(Arc<F>);

impl<F: Fn(Request) -> Answered + Send + Sync + 'static> Erased for End<F> {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answered {
        (self.0)(request)
    }

    fn copy(&self) -> Box<dyn Erased> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

impl Next {
    pub(crate) fn end(call: impl Fn(Request) -> Answered + Send + Sync + 'static) -> Self {
        Self(Box::new(End(Arc::new(call))))
    }

    pub(crate) fn new(service: impl Bounds) -> Self {
        Self(Box::new(Typed(service)))
    }
}

impl Clone for Next {
    fn clone(&self) -> Self {
        Self(self.0.copy())
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

impl Service<Request> for Next {
    type Response = Response;
    type Error = BoxError;
    type Future = Answered;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Answered {
        self.0.call(request)
    }
}

/// All layers of an endpoint or of a client, and what is inside them.
pub(crate) struct Stack(Mutex<Next>);

impl Stack {
    pub(crate) fn new(outermost: Next) -> Self {
        Self(Mutex::new(outermost))
    }

    /// Waits until the layers are ready for one more, and hands the request over.
    pub(crate) async fn call(&self, request: Request) -> Result<Response, BoxError> {
        let mut service = {
            // A clone that panicked has left the original as it was.
            let outermost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            outermost.clone()
        };
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}
