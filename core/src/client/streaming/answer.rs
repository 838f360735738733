//! A stream of answers, typed.

use super::super::error::CallError;
use super::open::Opened;
use crate::streaming::{Broken, Last, Reader};
use crate::telemetry::WatchedCall;
use crate::wire::codec::Codec;
use crate::wire::error::{Error, ServiceError};
use async_nats::{HeaderMap, Subject};
use futures_util::Stream;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The items that a service sends, in order, as a [`Stream`] of `Result<T, CallError<E>>`.
///
/// It ends with `None` when the service's stream has ended, and after an error: the service's own
/// ([`CallError::Service`]), one of the framework ([`CallError::Remote`]: the handler panicked, the service stops), or what
/// broke the stream ([`CallError::Broken`]). An item is never left out without a word. Dropping it stops the handler.
///
/// The service runs ahead of the reader by a bounded amount: see [`StreamCall::window`](crate::StreamCall::window).
///
/// ```
/// # use nats_service_testkit::TestServer;
/// use futures_util::{StreamExt as _, stream};
/// use nats_service::{Error, Server, Stream, async_nats, nats_service};
///
/// #[nats_service]
/// trait Counting {
///     async fn count(&self, to: u64) -> Result<impl Stream<Item = Result<u64, Error>> + Send, Error>;
/// }
///
/// struct Counter;
/// impl Counting for Counter {
///     async fn count(&self, to: u64) -> Result<impl Stream<Item = Result<u64, Error>> + Send, Error> {
///         Ok(stream::iter(1..=to).map(Ok))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = TestServer::start().await?;
/// let nats = async_nats::connect(server.url()).await?;
/// let running = Server::new(nats.clone()).serve(CountingServer::new(Counter)).start().await?;
///
/// let mut numbers = CountingClient::new(nats).count(1_000).await?;
/// let mut sum = 0;
/// while let Some(number) = numbers.next().await {
///     sum += number?;
/// }
/// assert_eq!(sum, 500_500);
/// # running.shutdown(std::time::Duration::from_secs(10)).await?; Ok(()) }
/// ```
#[must_use = "dropping it stops the handler"]
#[derive(Debug)]
pub struct Streaming<T, E = Infallible> {
    /// `None` after the end.
    reader: Option<Reader>,
    /// The same.
    watched: Option<Box<WatchedCall>>,
    codec: Codec,
    headers: HeaderMap,
    subject: Subject,
    item: PhantomData<fn() -> Result<T, E>>,
}

impl<T, E: ServiceError> Streaming<T, E> {
    pub(super) fn new(mut opened: Opened) -> Self {
        // A reader that has enough before the end has not failed.
        opened.says::<E>(None);
        let Opened {
            reader,
            codec,
            headers,
            subject,
            watched,
        } = opened;
        Self {
            reader: Some(reader),
            watched,
            codec,
            headers,
            subject,
            item: PhantomData,
        }
    }
}

impl<T, E> Streaming<T, E> {
    /// The headers that the service began with: those that its handler had set by then.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl<T: DeserializeOwned, E: ServiceError> Stream for Streaming<T, E> {
    type Item = Result<T, CallError<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(reader) = &self.reader else {
            return Poll::Ready(None);
        };
        let item = match reader.poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(item)) => self.codec.decode(&item).map_err(CallError::Decode),
            Poll::Ready(None) => {
                let Some(Last::Broken(broken)) = reader.take_last() else {
                    (self.reader, self.watched) = (None, None);
                    return Poll::Ready(None);
                };
                Err(failure(self.subject.clone(), broken))
            }
        };
        if let Err(error) = &item {
            // Nothing that comes after it would make sense.
            self.reader = None;
            if let Some(mut watched) = self.watched.take() {
                watched.says(Some(error.code()));
            }
        }
        Poll::Ready(Some(item))
    }
}

/// What ended a stream, as a caller sees it.
pub(super) fn failure<E: ServiceError>(subject: Subject, broken: Broken) -> CallError<E> {
    let failure: CallError<Error> = match broken {
        Broken::Error(error) => CallError::Service(*error),
        Broken::Break(why) => CallError::Broken { subject, why },
        Broken::Encode(error) => CallError::Encode(error),
        Broken::TooLarge { size, max } => CallError::TooLarge { subject, size, max },
    };
    CallError::of_reply(failure)
}
