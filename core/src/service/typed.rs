//! The typed part of a request: its body's bytes to a value, the handler's value to bytes, and the keys that both give.
//!
//! Shared by all kinds of endpoints, and compiled for each method: so it hands over to what is compiled once as early as it can.

use super::admit::{Admitted, internal};
use super::finish::{Content, Outcome};
use crate::__private::{Handle, Sent};
use crate::store::Keys;
use crate::wire::codec::{Codec, CodecError, Decode, decoded};
use crate::wire::error::{Error, ServiceError as _};
use crate::wire::stream::ByteStream;
use bytes::Bytes;
use serde::Deserialize;
use std::any::Any;
use std::marker::PhantomData;

impl Admitted {
    /// The body of a request.
    pub(crate) fn decode<'m, R: Deserialize<'m>>(&self, body: &'m [u8]) -> Result<R, Error> {
        let mut request = None;
        match self.decode_into(body, &mut request) {
            Ok(()) => Ok(decoded(request)),
            Err(refusal) => Err(refusal),
        }
    }

    fn decode_into<'m>(&self, body: &'m [u8], request: &mut dyn Decode<'m>) -> Result<(), Error> {
        let body = self.codec.body_or_unit(body);
        self.codec
            .decode_into(body, request)
            .map_err(|error| self.undecodable(&error))
    }
}

/// What comes before the handler.
pub(crate) fn open<'m, S, M: Handle<S>>(
    call: &mut Admitted,
    body: &'m [u8],
) -> Result<M::Request<'m>, Error> {
    let request = call.decode(body)?;
    if let Some(keys) = &mut call.keys {
        M::request_keys(&request, keys)?;
        keys.request_done();
    }
    call.opened()?;
    Ok(request)
}

/// What comes after it.
pub(crate) fn close<S, M: Handle<S>>(
    returned: M::Returned,
    call: Admitted,
    body: &[u8],
) -> Outcome {
    match M::split(returned) {
        Ok(answer) => {
            let mut returned = Returned::<S, M> {
                answer,
                method: PhantomData,
            };
            closed(&mut returned, call, body)
        }
        Err(error) => Ok(Err(call.failure(&error, error.to_wire()))),
    }
}

/// A handler's answer, whatever its type.
trait Value {
    fn keys(&self, sent: Sent<'_>, keys: &mut Keys) -> Result<(), Error>;
    fn encode(&self, codec: Codec) -> Result<Bytes, CodecError>;
    fn any(&mut self) -> &mut dyn Any;
}

struct Returned<S, M: Handle<S>> {
    answer: M::Answer,
    method: PhantomData<fn() -> S>,
}

impl<S, M: Handle<S>> Value for Returned<S, M> {
    fn keys(&self, sent: Sent<'_>, keys: &mut Keys) -> Result<(), Error> {
        M::response_keys(&self.answer, sent, keys)
    }

    fn encode(&self, codec: Codec) -> Result<Bytes, CodecError> {
        codec.encode(&self.answer)
    }

    fn any(&mut self) -> &mut dyn Any {
        &mut self.answer
    }
}

fn closed(answer: &mut dyn Value, mut call: Admitted, body: &[u8]) -> Outcome {
    let codec = call.codec;
    if let Some(keys) = &mut call.keys
        && let Err(error) = answer.keys(Sent { codec, body }, keys)
    {
        // The caller did nothing wrong here: the service made an id that cannot be stored.
        return Err(internal(&error));
    }
    if let Some(stream) = ByteStream::take_from(answer.any()) {
        return Ok(Ok(call.answer(Content::Stream(stream))));
    }
    let (codec, stored) = call.codecs();
    let stored = stored.map(|codec| Ok((answer.encode(codec)?, codec)));
    match (answer.encode(codec), stored.transpose()) {
        (Ok(body), Ok(stored)) => Ok(Ok(call.answer(Content::Bytes(body, stored)))),
        (Err(error), _) | (_, Err(error)) => Err(internal(&error)),
    }
}
