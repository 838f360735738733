//! What is done for a request before its handler runs, whatever its type: what it is written in, whether there will be room
//! for its answer.
//!
//! Not generic, so that it is compiled once and not once a method.

use super::finish::{Answer, Content, Context, Failed};
use crate::store::Keys;
use crate::store::persist::{Permit, Writer};
use crate::wire::codec::{Codec, CodecError};
use crate::wire::context::{self, Extensions};
use crate::wire::error::{Code, Error};
use crate::wire::header;
use async_nats::{HeaderMap, Message};
use std::sync::Arc;
use std::time::Instant;

/// A request that is being served, but for what is typed in it.
pub(crate) struct Admitted {
    /// What it is written in, and what its answer will be.
    pub(crate) codec: Codec,
    /// `None` when the method has no stores.
    pub(crate) keys: Option<Keys>,
    /// For each of the stores that writes.
    room: Vec<Permit>,
    /// `None` when nobody asks for it.
    context: Option<CallContext>,
}

/// A call's context, which learns that the call is over when this goes.
struct CallContext(context::Context);

impl Drop for CallContext {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Admitted {
    pub(crate) fn context(&self) -> Option<&context::Context> {
        self.context.as_ref().map(|context| &context.0)
    }

    pub(crate) fn answer(self, content: Content) -> Answer {
        let headers = self
            .context()
            .and_then(|context| context.take_reply_headers());
        let keys = self.keys.map(Keys::finish);
        Answer::new(content, self.codec, headers, keys, self.room)
    }

    /// The handler's own error.
    pub(crate) fn failure(self, error: Error) -> Failed {
        let headers = self
            .context()
            .and_then(|context| context.take_reply_headers());
        Failed { error, headers }
    }
}

impl Context {
    pub(crate) fn admit(
        &self,
        headers: Option<HeaderMap>,
        received: Instant,
        deadline: Instant,
    ) -> Result<Admitted, Error> {
        let stores = self.spec.stores;
        Ok(Admitted {
            codec: self.request_codec(headers.as_ref())?,
            keys: (!stores.is_empty()).then(|| Keys::new(stores.iter().map(|store| store.key))),
            room: Vec::new(),
            context: self.spec.context.then(|| {
                let headers = headers.unwrap_or_default();
                CallContext(context::Context::new(
                    self.origin.clone(),
                    headers,
                    received,
                    deadline,
                    self.extensions(),
                ))
            }),
        })
    }

    /// What layers have kept with the call.
    fn extensions(&self) -> Option<Arc<Extensions>> {
        #[cfg(feature = "tower")]
        if self.layered {
            return super::layered::extensions();
        }
        None
    }

    /// Until when a request that was `received` then is to be answered: as long as the contract says, or as long as its caller
    /// waits where that is shorter.
    pub(crate) fn deadline(&self, message: &Message, received: Instant) -> Instant {
        let timeout = self.spec.timeout;
        let timeout = header::caller_timeout(message.headers.as_ref())
            .map_or(timeout, |callers| callers.min(timeout));
        received + timeout
    }

    /// What the body is written in: what its header says, or else what the service speaks.
    fn request_codec(&self, headers: Option<&HeaderMap>) -> Result<Codec, Error> {
        let Some(said) = headers.and_then(|headers| headers.get(header::CONTENT_TYPE)) else {
            return Ok(self.spec.codec);
        };
        Codec::from_content_type(said.as_str()).ok_or_else(|| {
            Error::new(
                Code::InvalidArgument,
                format!(
                    "{}: a body of type `{}` is not understood; send `{}`",
                    self.spec.subject,
                    said.as_str(),
                    self.spec.codec.content_type()
                ),
            )
        })
    }

    pub(crate) fn undecodable(&self, error: &CodecError) -> Error {
        Error::invalid_argument(format!("{}: {error}", self.spec.subject))
    }

    /// Waits for room in the writers of this method's buckets, before the handler runs: an answer that could not be kept
    /// must not be promised.
    pub(crate) async fn reserve(&self, call: &mut Admitted) -> Result<(), Error> {
        if self.stores.is_empty() {
            return Ok(());
        }
        call.room.reserve_exact(self.stores.len());
        for writer in self.stores.iter().filter_map(|store| store.writer.as_ref()) {
            call.room.push(match writer.try_reserve() {
                Ok(permit) => permit,
                Err(_) => Box::pin(self.wait_for_room(writer)).await?,
            });
        }
        Ok(())
    }

    async fn wait_for_room(&self, writer: &Writer) -> Result<Permit, Error> {
        let full = match writer.reserve(self.patience).await {
            Ok(permit) => return Ok(permit),
            Err(full) => full,
        };
        let text = format!("{}: {full}; try again later", self.spec.subject);
        Err(Error::resource_exhausted(text))
    }
}

pub(crate) fn internal(error: &dyn std::fmt::Display) -> Error {
    Error::internal(error.to_string())
}
