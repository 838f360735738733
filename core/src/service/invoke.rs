//! One request from its bytes to its answer's bytes: decode, make the keys, call, encode.
//!
//! This is the only generic part of the service side; what it leaves out (admitting, replying, storing, counting) is the
//! same for every method and stands in `admit`, `finish` and `endpoint`.

use super::admit::{Admitted, internal};
use super::finish::{Content, Context, Outcome, Verdict};
use crate::__private::HandleStream;
use crate::__private::{Handle, Sent};
use crate::layer::Layers;
use crate::wire::codec::Codec;
use crate::wire::error::{Error, ServiceError as _};
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use async_nats::Message;
use std::marker::PhantomData;
use std::sync::Arc;
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
        let service = Arc::clone(service);
        let bind: Bind = Box::new(move |context| {
            Arc::new(Typed::<S, M> {
                service,
                context,
                method: PhantomData,
            })
        });
        self.endpoints.push(Mounted {
            spec: M::SPEC,
            streams: ByteStream::is::<M::Answer>(),
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

struct Typed<S, M> {
    service: Arc<S>,
    context: Context,
    method: PhantomData<fn() -> M>,
}

impl<S: Send + Sync + 'static, M: Handle<S>> Endpoint for Typed<S, M> {
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
        // One future and two plain functions, since this is compiled once a method: a future costs the compiler more.
        slot.set(async move {
            let headers = message.headers.take();
            let admitted = self.context.admit(headers, received, deadline);
            let outcome = match open::<S, M>(&self.context, admitted, &message.payload) {
                Ok((request, mut call)) => match self.context.reserve(&mut call).await {
                    Ok(()) => {
                        let returned = M::call(&self.service, request, call.context()).await;
                        close::<S, M>(returned, call, &message.payload)
                    }
                    Err(refusal) => Err(refusal),
                },
                Err(refusal) => Err(refusal),
            };
            self.context.finish(message.reply, deadline, outcome).await
        });
    }
}

/// What comes before the handler.
pub(crate) fn open<'m, S, M: Handle<S>>(
    context: &Context,
    admitted: Result<Admitted, Error>,
    body: &'m [u8],
) -> Result<(M::Request<'m>, Admitted), Error> {
    let mut call = admitted?;
    let body = call.codec.body_or_unit(body);
    let request = match call.codec.decode(body) {
        Ok(request) => request,
        Err(error) => return Err(context.undecodable(&error)),
    };
    if let Some(keys) = &mut call.keys {
        M::request_keys(&request, keys)?;
        keys.request_done();
    }
    Ok((request, call))
}

/// What comes after it.
pub(crate) fn close<S, M: Handle<S>>(
    returned: Result<M::Answer, M::Error>,
    mut call: Admitted,
    body: &[u8],
) -> Outcome {
    let value = match returned {
        Ok(value) => value,
        Err(error) => return Ok(Err(call.failure(&error, error.to_wire()))),
    };
    let codec = call.codec;
    if let Some(keys) = &mut call.keys
        && let Err(error) = M::response_keys(&value, Sent { codec, body }, keys)
    {
        // The caller did nothing wrong here: the service made an id that cannot be stored.
        return Err(internal(&error));
    }
    let content = match ByteStream::of_answer(value) {
        Ok(stream) => Content::Stream(stream),
        Err(value) => {
            let (codec, stored) = call.codecs();
            let encode = |codec: Codec| Ok((codec.encode(&value)?, codec));
            let stored = stored.map(encode).transpose();
            match (codec.encode(&value), stored) {
                (Ok(body), Ok(stored)) => Content::Bytes(body, stored),
                (Err(error), _) | (_, Err(error)) => return Err(internal(&error)),
            }
        }
    };
    Ok(Ok(call.answer(content)))
}
