//! A method as an endpoint: its types are erased in front of everything that is the same for all, so that this is compiled once.
//!
//! What is typed in a request stands in `typed`; admitting, replying, storing and counting in `admit`, `finish` and `endpoint`.

use super::admit::{Admitted, Returned};
use super::finish::{Context, Outcome, Verdict};
use super::typed::{close, open};
use crate::__private::{Handle, HandleStream};
use crate::layer::Layers;
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use async_nats::Message;
use bytes::Bytes;
use std::convert::Infallible;
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
        self.plain(service, M::SPEC, streams, |service, desk| {
            Box::pin(serve::<S, M>(service, desk))
        });
    }

    fn plain<S: Send + Sync + 'static>(
        &mut self,
        service: &Arc<S>,
        spec: &'static MethodSpec,
        streams: bool,
        serve: fn(Arc<S>, Desk) -> Servant,
    ) {
        let service = Arc::clone(service);
        let make = Box::new(move |desk| serve(Arc::clone(&service), desk));
        let bind: Bind = Box::new(move |context| {
            Arc::new(Plain {
                context,
                make,
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

/// Serves the requests that are put on the desk, one after the other, from the body to the answer. The only future that is
/// compiled for each method: it waits for nothing but the handler.
async fn serve<S: Send + Sync + 'static, M: Handle<S>>(service: Arc<S>, desk: Desk) -> Infallible {
    loop {
        let mut job = NextJob(&desk).await;
        let returned = match open::<S, M>(&mut job.call, &job.body) {
            Ok(request) => {
                let returned = M::call(&service, request, job.call.context()).await;
                close::<S, M>(returned, &mut job.call, &job.body)
            }
            Err(refusal) => Err(refusal),
        };
        desk.hand_back(job, returned);
    }
}

/// A future that serves one request at a time and then waits for the next, so that its memory is used again.
type Servant = Pin<Box<dyn Future<Output = Infallible> + Send>>;

struct Job {
    call: Admitted,
    body: Bytes,
}

/// Where a [`Servant`] finds its job, and leaves what became of it. Nobody else is there while it is polled.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<OnDesk>>);

#[derive(Default)]
struct OnDesk {
    job: Option<Job>,
    outcome: Option<Outcome>,
}

impl Desk {
    fn hand_back(&self, job: Job, returned: Returned) {
        locked(&self.0).outcome = Some(job.call.outcome(returned));
    }
}

/// It is on the desk before the servant is polled, so nobody has to be woken.
struct NextJob<'a>(&'a Desk);

impl Future for NextJob<'_> {
    type Output = Job;

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Job> {
        match locked(&self.0.0).job.take() {
            Some(job) => Poll::Ready(job),
            None => Poll::Pending,
        }
    }
}

/// A servant and its desk.
struct Place {
    servant: Servant,
    desk: Desk,
}

impl Place {
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Outcome> {
        let Poll::Pending = self.servant.as_mut().poll(cx);
        match locked(&self.desk.0).outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

/// A method that is neither cached nor streams.
struct Plain {
    context: Context,
    make: Box<dyn Fn(Desk) -> Servant + Send + Sync>,
    /// Where no call is served at the moment.
    spare: Mutex<Vec<Place>>,
}

/// More than these are not kept. A request that ends at once needs one of them.
const SPARE: usize = 64;

impl Plain {
    async fn serve(&self, mut call: Admitted, body: Bytes) -> Outcome {
        if let Err(full) = self.context.reserve(&mut call).await {
            call.refuse(full);
        }
        let spare = locked(&self.spare).pop();
        let mut place = spare.unwrap_or_else(|| self.place());
        locked(&place.desk.0).job = Some(Job { call, body });
        let outcome = poll_fn(|cx| place.poll(cx)).await;
        let mut spare = locked(&self.spare);
        if spare.len() < SPARE {
            spare.push(place);
        }
        outcome
    }

    fn place(&self) -> Place {
        let desk = Desk::default();
        Place {
            servant: (self.make)(desk.clone()),
            desk,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
