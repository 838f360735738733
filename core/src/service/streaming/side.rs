//! What stands between a handler's typed streams and the bytes of a session.

use crate::__private::Outcome;
use crate::streaming::{Inlet, Produced, Reader, Source};
use crate::wire::codec::Codec;
use crate::wire::error::{Error, ServiceError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What a handler's answer is to become.
pub struct Outbound<'a> {
    pub(super) source: Source<'a>,
    /// It is items, one by one, and not just an answer.
    pub(super) items: bool,
}

impl std::fmt::Debug for Outbound<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").finish_non_exhaustive()
    }
}

/// A handler on its way to its answer.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Outbound<'a>, Error>> + Send + 'a>>;

/// A stream as generated code gets it: it knows the codecs, and has the requests.
#[derive(Debug)]
pub struct Side {
    pub(super) inlet: Arc<Inlet>,
    pub(super) requests: Codec,
    pub(super) answers: Codec,
}

impl Side {
    /// The caller's stream.
    #[must_use]
    pub fn requests<T: DeserializeOwned>(&self) -> Requests<T> {
        Requests {
            reader: Reader(Arc::clone(&self.inlet)),
            codec: self.requests,
            ended: false,
            item: PhantomData,
        }
    }

    /// A handler that answers with a stream of `P`.
    pub fn items<'a, P, S, E>(
        self,
        handler: impl Future<Output = Result<S, E>> + Send + 'a,
    ) -> Opening<'a>
    where
        S: Stream + Send + 'a,
        P: Outcome<S::Item>,
        P::Answer: Serialize,
        P::Error: ServiceError,
        E: ServiceError,
    {
        let codec = self.answers;
        Box::pin(async move {
            let items = match handler.await {
                Ok(items) => items,
                Err(error) => return Err(error.to_wire()),
            };
            let items = items.map(move |item| match P::split(item) {
                Ok(item) => produced(codec.encode(&item)),
                Err(error) => Produced::Failed(Box::new(error.to_wire())),
            });
            Ok(Outbound {
                source: Box::pin(items),
                items: true,
            })
        })
    }

    /// A handler that answers once.
    pub fn answer<'a, T, E>(
        self,
        handler: impl Future<Output = Result<T, E>> + Send + 'a,
    ) -> Opening<'a>
    where
        T: Serialize,
        E: ServiceError,
    {
        let codec = self.answers;
        Box::pin(async move {
            match handler.await {
                Ok(answer) => match codec.encode(&answer) {
                    Ok(body) => Ok(Outbound {
                        source: once(Produced::Answer(body)),
                        items: false,
                    }),
                    Err(error) => Err(Error::internal(error.to_string()).refused()),
                },
                Err(error) => Err(error.to_wire()),
            }
        })
    }
}

pub(super) fn once<'a>(produced: Produced) -> Source<'a> {
    Box::pin(stream::once(std::future::ready(produced)))
}

fn produced(encoded: Result<Bytes, crate::CodecError>) -> Produced {
    match encoded {
        Ok(item) => Produced::Item(item),
        Err(error) => Produced::Failed(Box::new(Error::internal(error.to_string()).refused())),
    }
}

/// The caller's stream, in a handler. It ends when the caller's has ended; where the caller is lost, or sends what is no
/// `T`, the handler is dropped instead.
#[derive(Debug)]
pub struct Requests<T> {
    reader: Reader,
    codec: Codec,
    ended: bool,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Stream for Requests<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.reader.poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) if self.reader.ended_well() => {
                self.ended = true;
                Poll::Ready(None)
            }
            // The session is about to drop the handler, which must not take this for an end.
            Poll::Ready(None) => Poll::Pending,
            Poll::Ready(Some(item)) => match self.codec.decode(&item) {
                Ok(item) => Poll::Ready(Some(item)),
                Err(error) => {
                    let text = format!("an item of the stream of requests: {error}");
                    self.reader.spoil(Error::invalid_argument(text).refused());
                    Poll::Pending
                }
            },
        }
    }
}
