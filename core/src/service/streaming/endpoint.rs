//! The generic part of a streaming endpoint: decode the request, call the handler.

use super::super::finish::Context;
use super::super::invoke::{Endpoint, Mounted, Serving};
use crate::__private::HandleStream;
use crate::streaming::head;
use async_nats::Message;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

/// One streaming method, before the server knows its connection.
pub(crate) fn mounted<S, M>(service: &Arc<S>) -> Mounted
where
    S: Send + Sync + 'static,
    M: HandleStream<S>,
{
    let service = Arc::clone(service);
    Mounted {
        spec: M::SPEC,
        streams: false,
        bind: Box::new(move |context| {
            Arc::new(Streaming::<S, M> {
                service,
                context,
                method: PhantomData,
            })
        }),
    }
}

struct Streaming<S, M> {
    service: Arc<S>,
    context: Context,
    method: PhantomData<fn() -> M>,
}

impl<S: Send + Sync + 'static, M: HandleStream<S>> Endpoint for Streaming<S, M> {
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
            let (context, body) = (&self.context, &message.payload);
            let headers = message.headers.take();
            let asked = headers.as_ref().and_then(head);
            let call = match context.admit_stream(headers, received) {
                Ok(call) => call,
                Err(refusal) => return context.refuse(message.reply, refusal).await,
            };
            let request = match call.decode(body) {
                Ok(request) => request,
                Err(refusal) => return context.refuse(message.reply, refusal).await,
            };
            let (stream, side) = match context.open_stream(asked, &message, &call).await {
                Ok(opened) => opened,
                Err(refusal) => return context.refuse(message.reply, refusal).await,
            };
            let opening = M::open(&self.service, request, call.context(), side);
            context.run_stream(stream, opening, &call, deadline).await
        });
    }
}
