//! The generic part: an endpoint whose calls are looked for in the bucket first. Only methods with a cache are compiled with it.

use super::super::finish::{Context, Outcome};
use super::super::invoke::{Endpoint, Mount, Mounted, Serving};
use super::super::typed::{close, open};
use super::Turn;
use crate::__private::Handle;
use crate::wire::codec::{Codec, CodecError};
use crate::wire::stream::ByteStream;
use async_nats::Message;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

impl Mount {
    /// Adds one method whose answers are cached.
    pub fn cached<S: Send + Sync + 'static, M: Handle<S>>(&mut self, service: &Arc<S>) {
        let service = Arc::clone(service);
        self.endpoints.push(Mounted {
            spec: M::SPEC,
            streams: ByteStream::is::<M::Answer>(),
            bind: Box::new(move |context| {
                Arc::new(Cached::<S, M> {
                    service,
                    context,
                    method: PhantomData,
                })
            }),
        });
    }
}

struct Cached<S, M> {
    service: Arc<S>,
    context: Context,
    method: PhantomData<fn() -> M>,
}

impl<S: Send + Sync + 'static, M: Handle<S>> Endpoint for Cached<S, M> {
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
            let (context, service, reply) = (&self.context, &self.service, message.reply.take());
            let mut call = match context.admit(message.headers.take(), received, deadline) {
                Ok(call) => call,
                Err(refusal) => return context.finish(reply, deadline, Err(refusal)).await,
            };
            let request = match open::<S, M>(&mut call, &message.payload) {
                Ok(request) => request,
                Err(refusal) => return context.finish(reply, deadline, Err(refusal)).await,
            };
            let turn = Box::pin(context.look(&call, deadline, revive::<M::Answer>)).await;
            let handled = async {
                context.reserve(&mut call).await?;
                let returned = M::call(service, request, call.context()).await;
                let returned = close::<S, M>(returned, &mut call, &message.payload);
                call.outcome(returned)
            };
            let outcome: Outcome = match turn {
                Turn::Answered(answered) => return context.give(reply, answered).await,
                Turn::Plain => handled.await,
                Turn::Lead(mut lead) => {
                    let outcome = lead.fly(deadline, Box::pin(handled)).await;
                    return Box::pin(context.settle(reply, deadline, *lead, outcome)).await;
                }
            };
            context.finish(reply, deadline, outcome).await
        });
    }
}

/// See [`super::Revive`].
fn revive<A: Serialize + DeserializeOwned>(
    stored: Codec,
    body: &Bytes,
    wanted: Codec,
) -> Result<Bytes, CodecError> {
    let answer: A = stored.decode(stored.body_or_unit(body))?;
    if stored == wanted {
        Ok(body.clone())
    } else {
        wanted.encode(&answer)
    }
}
