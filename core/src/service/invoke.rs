//! One request from its bytes to its answer's bytes: decode, make the keys, call, encode.
//!
//! This is the only generic part of the service side; what it leaves out (replying, storing, counting) is the same for
//! every method and stands in `finish` and `endpoint`.

use super::finish::{Answer, Context, Outcome, Verdict};
use crate::__private::{Handle, Method};
use crate::store::Keys;
use crate::wire::codec::{Codec, CodecError};
use crate::wire::error::{Code, Error, ServiceError as _};
use crate::wire::header;
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use async_nats::Message;
use bytes::Bytes;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

/// One request while it is served. Its memory is used again for the next one.
pub(crate) type Serving = ReusableBoxFuture<'static, Verdict>;

/// An endpoint with its handler's type erased.
pub(crate) trait Endpoint: Send + Sync {
    fn context(&self) -> &Context;

    /// Puts the future that serves `message`, which was `received` then, into `slot`.
    fn begin(self: Arc<Self>, message: Message, received: Instant, slot: &mut Serving);
}

/// Collects the endpoints of a service; generated code fills it.
#[derive(Default)]
pub struct Mount {
    pub(crate) endpoints: Vec<Mounted>,
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

    fn begin(self: Arc<Self>, message: Message, received: Instant, slot: &mut Serving) {
        slot.set(async move {
            let answer = answer::<S, M>(&self.service, &self.context, &message).await;
            self.context.finish(message.reply, received, answer).await
        });
    }
}

async fn answer<S, M: Handle<S>>(service: &S, context: &Context, message: &Message) -> Outcome {
    let spec = <M as Method>::SPEC;
    let codec = request_codec(spec, message)?;
    let request: M::Request<'_> = codec
        .decode(codec.body_or_unit(&message.payload))
        .map_err(|error| undecodable(spec, &error))?;
    let mut keys = None;
    if !spec.stores.is_empty() {
        let keys = keys.insert(Keys::new(spec.stores.iter().map(|store| store.key)));
        M::request_keys(&request, keys)?;
        keys.request_done();
    }
    let room = match context.stores.is_empty() {
        true => Vec::new(),
        false => context.reserve().await?,
    };
    let value = match M::call(service, request).await {
        Ok(value) => value,
        Err(error) => return Ok(Err(error.to_wire())),
    };
    if let Some(keys) = &mut keys {
        // The caller did nothing wrong here: the service made an id that cannot be stored.
        M::response_keys(&value, keys).map_err(internal)?;
    }
    let keys = keys.map(Keys::finish);
    let (body, reference) = match ByteStream::of_answer(value) {
        Ok(stream) => {
            let keys = keys.as_deref().unwrap_or_default();
            let stored = Box::pin(context.store_stream(stream, keys)).await?;
            (Bytes::new(), Some(stored))
        }
        Err(value) => (codec.encode(&value).map_err(internal)?, None),
    };
    Ok(Ok(Answer::new(body, codec, keys, room, reference)))
}

// Not closures in the function above: that one is compiled once a method, and these once.

fn undecodable(spec: &MethodSpec, error: &CodecError) -> Error {
    Error::invalid_argument(format!("{}: {error}", spec.subject))
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::internal(error.to_string())
}

/// What the body is written in: what its header says, or else what the service speaks.
fn request_codec(spec: &MethodSpec, message: &Message) -> Result<Codec, Error> {
    let Some(said) = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get(header::CONTENT_TYPE))
    else {
        return Ok(spec.codec);
    };
    Codec::from_content_type(said.as_str()).ok_or_else(|| {
        Error::new(
            Code::InvalidArgument,
            format!(
                "{}: a body of type `{}` is not understood; send `{}`",
                spec.subject,
                said.as_str(),
                spec.codec.content_type()
            ),
        )
    })
}
