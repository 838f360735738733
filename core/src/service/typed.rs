//! The typed part of a request: its body's bytes to a value, the handler's value to bytes, and the keys that both give.
//!
//! Shared by all kinds of endpoints, and compiled for each method: so it hands over to what is compiled once as early as it can.

use super::admit::{Admitted, Returned, internal};
use super::finish::Content;
use crate::__private::{Handle, Sent};
use crate::store::{KeyError, Keys};
use crate::wire::codec::{Codec, Decode, Encode, decoded};
use crate::wire::error::{Error, ServiceError as _};
use crate::wire::stream::ByteStream;
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
    let mut asked = Asked::<S, M> {
        request: None,
        service: PhantomData,
    };
    match opened(&mut asked, call, body) {
        Ok(()) => Ok(decoded(asked.request)),
        Err(refusal) => Err(refusal),
    }
}

/// The place of a request, whatever its type.
trait Request<'m> {
    fn place(&mut self) -> &mut dyn Decode<'m>;
    fn keys(&self, keys: &mut Keys) -> Result<(), KeyError>;
}

struct Asked<'m, S, M: Handle<S>> {
    request: Option<M::Request<'m>>,
    service: PhantomData<fn() -> S>,
}

impl<'m, S, M: Handle<S>> Request<'m> for Asked<'m, S, M> {
    fn place(&mut self) -> &mut dyn Decode<'m> {
        &mut self.request
    }

    fn keys(&self, keys: &mut Keys) -> Result<(), KeyError> {
        match &self.request {
            Some(request) => M::request_keys(request, keys),
            None => Ok(()),
        }
    }
}

fn opened<'m>(
    asked: &mut dyn Request<'m>,
    call: &mut Admitted,
    body: &'m [u8],
) -> Result<(), Error> {
    call.decode_into(body, asked.place())?;
    if let Some(keys) = &mut call.keys {
        asked.keys(keys)?;
        keys.request_done();
    }
    call.opened()
}

/// What comes after it.
pub(crate) fn close<S, M: Handle<S>>(
    returned: M::Returned,
    call: &mut Admitted,
    body: &[u8],
) -> Returned {
    match M::split(returned) {
        Ok(answer) => {
            let mut answered = Answered::<S, M> {
                answer,
                service: PhantomData,
            };
            closed(&mut answered, call, body)
        }
        Err(error) => {
            let sent = error.to_wire();
            call.log(&error, &sent);
            Ok(Err(sent))
        }
    }
}

/// A handler's answer, whatever its type.
trait Value {
    fn keys(&self, sent: Sent<'_>, keys: &mut Keys) -> Result<(), Error>;
    fn encoded(&self) -> &dyn Encode;
    fn any(&mut self) -> &mut dyn Any;
}

struct Answered<S, M: Handle<S>> {
    answer: M::Answer,
    service: PhantomData<fn() -> S>,
}

impl<S, M: Handle<S>> Value for Answered<S, M> {
    fn keys(&self, sent: Sent<'_>, keys: &mut Keys) -> Result<(), Error> {
        M::response_keys(&self.answer, sent, keys)
    }

    fn encoded(&self) -> &dyn Encode {
        &self.answer
    }

    fn any(&mut self) -> &mut dyn Any {
        &mut self.answer
    }
}

fn closed(answer: &mut dyn Value, call: &mut Admitted, body: &[u8]) -> Returned {
    let codec = call.codec;
    if let Some(keys) = &mut call.keys
        && let Err(error) = answer.keys(Sent { codec, body }, keys)
    {
        // The caller did nothing wrong here: the service made an id that cannot be stored.
        return Err(internal(&error));
    }
    if let Some(stream) = ByteStream::take_from(answer.any()) {
        return Ok(Ok(Content::Stream(stream)));
    }
    let (codec, stored) = call.codecs();
    let encode = |codec: Codec| codec.encode_erased(answer.encoded());
    let stored = stored.map(|codec| Ok((encode(codec)?, codec)));
    match (encode(codec), stored.transpose()) {
        (Ok(body), Ok(stored)) => Ok(Ok(Content::Bytes(body, stored))),
        (Err(error), _) | (_, Err(error)) => Err(internal(&error)),
    }
}
