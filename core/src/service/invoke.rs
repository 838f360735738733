//! A method as an endpoint: its types are erased in front of everything that is the same for all, so that this is compiled once.
//!
//! What is typed in a request stands in `typed`; admitting, replying, storing and counting in `admit`, `finish` and `endpoint`.

use super::admit::Admitted;
use super::finish::{Context, Outcome, Verdict};
use super::typed::{close, open};
use crate::__private::{Handle, HandleStream};
use crate::layer::Layers;
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use async_nats::Message;
use bytes::Bytes;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

/// One request while it is served. Its memory is used again for the next one.
pub(crate) type Serving = ReusableBoxFuture<'static, Verdict>;

/// An endpoint with its handler's type erased.
pub(crate) trait Endpoint: Send + Sync {
    fn context(&self) -> &Context;

    /// Puts the future that serves `message`, which was `received` then and has time until `deadline`, into `slot`.
    fn begin(
        self: Arc<Self>,
        message: Message,
        received: Instant,
        deadline: Instant,
        slot: &mut Serving,
    );
}

/// Collects the endpoints of a service; generated code fills it.
#[derive(Default)]
pub struct Mount {
    pub(crate) endpoints: Vec<Mounted>,
    pub(crate) layers: Layers,
}

/// One method, before the server knows its connection.
pub(crate) struct Mounted {
    pub(crate) spec: &'static MethodSpec,
    /// It answers with a [`ByteStream`].
    pub(crate) streams: bool,
    pub(crate) bind: Bind,
}

/// Makes the endpoint once the server knows its connection and its stores.
pub(crate) type Bind = Box<dyn FnOnce(Context) -> Arc<dyn Endpoint> + Send>;

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.endpoints.iter().map(|mounted| mounted.spec.subject);
        f.debug_list().entries(names).finish()
    }
}

impl Mount {
    /// Puts these around every method.
    pub fn layers(&mut self, layers: Layers) {
        self.layers = layers;
    }

    /// Adds one method.
    pub fn method<S: Send + Sync + 'static, M: Handle<S>>(&mut self, service: &Arc<S>) {
        let streams = ByteStream::is::<M::Answer>();
        self.plain(service, M::SPEC, streams, |service| {
            Box::new(Desk {
                service,
                serve: serve::<S, M>,
                serving: Box::pin(None),
            })
        });
    }

    fn plain<S: Send + Sync + 'static>(
        &mut self,
        service: &Arc<S>,
        spec: &'static MethodSpec,
        streams: bool,
        desk: fn(Arc<S>) -> Box<dyn Place>,
    ) {
        let handler: Box<dyn Desks> = Box::new(Handler {
            service: Arc::clone(service),
            desk,
        });
        let bind: Bind = Box::new(move |context| {
            Arc::new(Plain {
                context,
                handler,
                spare: Mutex::default(),
            })
        });
        self.endpoints.push(Mounted {
            spec,
            streams,
            bind,
        });
    }

    /// Adds one method that streams.
    pub fn stream<S, M>(&mut self, service: &Arc<S>)
    where
        S: Send + Sync + 'static,
        M: HandleStream<S>,
    {
        self.endpoints
            .push(super::streaming::mounted::<S, M>(service));
    }
}

/// Serves one request, from the body to the answer. The only future that is compiled for each method: it waits for nothing but
/// the handler.
async fn serve<S: Send + Sync + 'static, M: Handle<S>>(
    service: Arc<S>,
    mut call: Admitted,
    body: Bytes,
) -> Outcome {
    let request = open::<S, M>(&mut call, &body)?;
    let returned = M::call(&service, request, call.context()).await;
    close::<S, M>(returned, call, &body)
}

/// Where a method's calls are served, one after the other, in the same memory.
trait Place: Send {
    fn begin(&mut self, call: Admitted, body: Bytes);
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Outcome>;
}

struct Desk<S, F> {
    service: Arc<S>,
    serve: fn(Arc<S>, Admitted, Bytes) -> F,
    serving: Pin<Box<Option<F>>>,
}

impl<S, F> Place for Desk<S, F>
where
    S: Send + Sync,
    F: Future<Output = Outcome> + Send,
{
    fn begin(&mut self, call: Admitted, body: Bytes) {
        let serving = (self.serve)(Arc::clone(&self.service), call, body);
        self.serving.set(Some(serving));
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Outcome> {
        match self.serving.as_mut().as_pin_mut() {
            Some(serving) => serving.poll(cx),
            None => Poll::Pending,
        }
    }
}

/// Makes the desks of a method: its service, and the method's type in a function.
trait Desks: Send + Sync {
    fn desk(&self) -> Box<dyn Place>;
}

struct Handler<S> {
    service: Arc<S>,
    desk: fn(Arc<S>) -> Box<dyn Place>,
}

impl<S: Send + Sync> Desks for Handler<S> {
    fn desk(&self) -> Box<dyn Place> {
        (self.desk)(Arc::clone(&self.service))
    }
}

/// A method that is neither cached nor streams.
struct Plain {
    context: Context,
    handler: Box<dyn Desks>,
    /// Where no call is served at the moment.
    spare: Mutex<Vec<Box<dyn Place>>>,
}

/// More than these are not kept. A request that ends at once needs one of them.
const SPARE: usize = 64;

impl Plain {
    async fn serve(&self, mut call: Admitted, body: Bytes) -> Outcome {
        if let Err(full) = self.context.reserve(&mut call).await {
            call.refuse(full);
        }
        let spare = self.spare().pop();
        let mut place = spare.unwrap_or_else(|| self.handler.desk());
        place.begin(call, body);
        let outcome = poll_fn(|cx| place.poll(cx)).await;
        let mut spare = self.spare();
        if spare.len() < SPARE {
            spare.push(place);
        }
        outcome
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Box<dyn Place>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint for Plain {
    fn context(&self) -> &Context {
        &self.context
    }

    fn begin(
        self: Arc<Self>,
        mut message: Message,
        received: Instant,
        deadline: Instant,
        slot: &mut Serving,
    ) {
        slot.set(async move {
            let headers = message.headers.take();
            let outcome = match self.context.admit(headers, received, deadline) {
                Ok(call) => self.serve(call, message.payload).await,
                Err(refusal) => Err(refusal),
            };
            self.context.finish(message.reply, deadline, outcome).await
        });
    }
}
