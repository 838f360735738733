//! What is done for a request before its handler runs, whatever its type: what it is written in, whether there will be room
//! for its answer.
//!
//! Not generic, so that it is compiled once and not once a method.

use super::finish::{Answer, Content, Context, Failed, Outcome};
use crate::store::Keys;
use crate::store::persist::{Permit, Writer};
use crate::wire::cause;
use crate::wire::codec::{Codec, CodecError};
use crate::wire::context::{self, Extensions};
use crate::wire::error::Error;
use crate::wire::header;
use async_nats::{HeaderMap, HeaderName, Message};
use std::sync::Arc;
use std::time::Instant;

/// What a handler has returned, as it is to be sent: its answer or its error; or, around both, why neither can be.
pub(crate) type Returned = Result<Result<Content, Error>, Error>;

/// A request that is being served, but for what is typed in it.
pub(crate) struct Admitted {
    subject: &'static str,
    /// What it is written in.
    pub(crate) codec: Codec,
    /// What its answer is to be written in.
    answer_codec: Codec,
    /// What the answer's entries are written in, where that is something else.
    stored_codec: Option<Codec>,
    /// The answer has to say what it is written in, even if that is the usual.
    says_type: bool,
    /// `None` when the method has no stores.
    pub(crate) keys: Option<Keys>,
    /// For each of the stores that writes.
    room: Vec<Permit>,
    /// Why there is none.
    full: Option<Box<Error>>,
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

    /// What the answer is to be written in, and what its entries, where that is something else.
    pub(crate) fn codecs(&self) -> (Codec, Option<Codec>) {
        (self.answer_codec, self.stored_codec)
    }

    /// What becomes of the request, now that its handler has returned.
    pub(crate) fn outcome(self, returned: Returned) -> Outcome {
        let returned = returned?;
        let mut headers = self
            .context()
            .and_then(|context| context.take_reply_headers());
        let content = match returned {
            Ok(content) => content,
            Err(error) => return Ok(Err(Failed { error, headers })),
        };
        if self.says_type {
            let headers = headers.get_or_insert_default();
            headers.insert(header::CONTENT_TYPE, self.answer_codec.content_type());
        }
        let keys = self.keys.map(Keys::finish);
        let answer = Answer::new(content, self.answer_codec, headers, keys, self.room);
        Ok(Ok(answer))
    }

    /// It is not to be handled, if nothing is wrong with the request itself: whoever sends it again is told that first.
    pub(crate) fn refuse(&mut self, full: Error) {
        self.full = Some(Box::new(full));
    }

    /// Whether it may be handled, now that it is decoded.
    pub(crate) fn opened(&mut self) -> Result<(), Error> {
        match self.full.take() {
            None => Ok(()),
            Some(full) => Err(*full),
        }
    }

    pub(crate) fn undecodable(&self, error: &CodecError) -> Error {
        Error::invalid_argument(format!("{}: {error}", self.subject))
    }

    /// The handler's own error. What lies behind it is for the operator, and stays here.
    pub(crate) fn log(&self, typed: &(dyn std::error::Error + 'static), error: &Error) {
        if let Some(causes) = cause::chain(typed) {
            let (code, variant) = (error.code(), error.variant());
            tracing::warn!(subject = self.subject, %code, variant, %error, causes, "a handler failed");
        }
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
        let (codec, answer_codec) = match &headers {
            None => (self.spec.codec, self.spec.codec),
            Some(headers) => self.named_codecs(headers)?,
        };
        let usual = codec == answer_codec && codec == self.spec.codec;
        Ok(Admitted {
            subject: self.spec.subject,
            codec,
            answer_codec,
            // Who asks does not decide what others find in a bucket.
            stored_codec: (!usual && !stores.is_empty() && answer_codec != self.spec.codec)
                .then_some(self.spec.codec),
            says_type: !usual && answer_codec == Codec::Json,
            keys: (!stores.is_empty()).then(|| Keys::new(stores.iter().map(|store| store.key))),
            room: Vec::new(),
            full: None,
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

    /// What the body is written in, and what the answer is to be: what the headers say of each, or else what the service
    /// speaks, and for the answer what the request is written in.
    fn named_codecs(&self, headers: &HeaderMap) -> Result<(Codec, Codec), Error> {
        let own = self.spec.codec;
        let of = |name| {
            let value = headers.get(HeaderName::from_static(name));
            value.map(|value| value.as_str())
        };
        let request = match of(header::CONTENT_TYPE) {
            None => own,
            Some(said) => own.or_named(said).ok_or_else(|| {
                self.not_spoken(&format!("a body of type `{said}` is not understood"))
            })?,
        };
        let answer = match of(header::ACCEPT) {
            None => request,
            Some(said) => request.accepted(said).ok_or_else(|| {
                self.not_spoken(&format!("an answer of type `{said}` cannot be given"))
            })?,
        };
        Ok((request, answer))
    }

    fn not_spoken(&self, what: &str) -> Error {
        let (subject, spoken) = (self.spec.subject, self.spec.codec.spoken());
        let text = format!("{subject}: {what}; spoken here: `{}`", spoken.join("`, `"));
        Error::invalid_argument(text)
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
