//! A call that streams, as its caller sees it: options, and the typed outcome.

use super::super::ClientCore;
use super::super::error::CallError;
use super::answer::{Streaming, failure};
use super::open::Opening;
use crate::streaming::{Last, Pace, Produced, Source, WINDOW};
use crate::wire::codec::{Codec, CodecError};
use crate::wire::error::ServiceError;
use crate::wire::frame::Amount;
use crate::wire::spec::MethodSpec;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

/// A caller's stream, as generated code hands it over.
pub struct Uploaded(Source<'static>);

impl Uploaded {
    /// Items of this stream, in this codec.
    pub fn new<T: Serialize>(
        codec: Codec,
        items: impl Stream<Item = T> + Send + 'static,
    ) -> Option<Self> {
        Some(Self(Box::pin(items.map(
            move |item| match codec.encode(&item) {
                Ok(item) => Produced::Item(item),
                Err(error) => Produced::Unsendable(error),
            },
        ))))
    }
}

impl fmt::Debug for Uploaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploaded").finish_non_exhaustive()
    }
}

macro_rules! options {
    () => {
        /// How long this call waits for the service to begin: for its first word, and not for its first item. After that,
        /// signs of life bound the silence.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.opening.timeout = timeout;
            self
        }

        /// How often each side says that it is there when it has nothing else to say (every 2 s; from 50 ms to a minute).
        /// After five times as long without a word the other side counts as lost. A break of the connection that is
        /// shorter costs nothing: what was lost in it is sent again.
        pub fn heartbeat(mut self, interval: Duration) -> Self {
            self.opening.pace = Pace::of(interval);
            self
        }
    };
}

/// A call that is answered with a stream: await it for its [`Streaming`].
///
/// ```no_run
/// # use nats_service::{Error, Stream, nats_service};
/// # #[nats_service] pub trait Log { async fn tail(&self, from: u64) -> Result<impl Stream<Item = Result<String, Error>> + Send, Error>; }
/// # async fn run(log: LogClient) -> Result<(), Box<dyn std::error::Error>> {
/// use futures_util::StreamExt as _;
/// // No more than 16 lines are on their way to a reader that takes its time.
/// let mut lines = log.tail(0).window(16, 64 << 10).await?;
/// while let Some(line) = lines.next().await {
///     println!("{}", line?);
/// }
/// # Ok(()) }
/// ```
#[must_use = "a call does nothing until it is awaited"]
pub struct StreamCall<T, E, O = E> {
    opening: Opening,
    item: PhantomData<fn() -> T>,
    errors: PhantomData<fn() -> (E, O)>,
}

impl<T, E, O> StreamCall<T, E, O> {
    pub(in crate::client) fn new(
        core: &ClientCore,
        spec: &'static MethodSpec,
        body: Result<Bytes, CodecError>,
        uploaded: Option<Uploaded>,
    ) -> Self {
        Self {
            opening: opening(core, spec, body, uploaded),
            item: PhantomData,
            errors: PhantomData,
        }
    }

    options!();

    /// How much may be on its way or unread: so many items (1,024; at most 65,536), and so many bytes (256 KiB; at most 8
    /// MiB), which the last item may exceed. The service does not run further ahead of its reader than that.
    pub fn window(mut self, items: usize, bytes: usize) -> Self {
        self.opening.window = Amount::window(items, bytes);
        self
    }
}

impl<T, E, O> IntoFuture for StreamCall<T, E, O>
where
    T: DeserializeOwned + 'static,
    E: ServiceError,
    O: ServiceError,
{
    type Output = Result<Streaming<T, E>, CallError<O>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let waits = self.opening.spec.stream.takes();
            let mut opened = self.opening.run().await.map_err(CallError::of_reply)?;
            if waits {
                // Where the caller streams, too, the handler still has to say whether it begins to answer.
                poll_fn(|cx| opened.reader.poll_begun(cx)).await;
                if let Some(Last::Broken(broken)) = opened.reader.take_last_if_unbegun() {
                    let error = failure(opened.subject.clone(), broken);
                    opened.says(Some(&error));
                    return Err(error);
                }
            }
            Ok(Streaming::new(opened))
        })
    }
}

/// A call that sends a stream and is answered once: await it for its answer.
///
/// Its time-out is for the beginning; the call then takes as long as its stream and its handler do. Dropping it stops both.
///
/// ```no_run
/// # use nats_service::{Error, Stream, nats_service};
/// # #[nats_service] pub trait Log { async fn append(&self, lines: impl Stream<Item = String> + Send) -> Result<u64, Error>; }
/// # async fn run(log: LogClient) -> Result<(), Box<dyn std::error::Error>> {
/// let lines = futures_util::stream::iter(["a".to_string(), "b".to_string()]);
/// let appended: u64 = log.append(lines).await?;
/// # Ok(()) }
/// ```
#[must_use = "a call does nothing until it is awaited"]
pub struct UploadCall<T, E> {
    opening: Opening,
    answer: PhantomData<fn() -> (T, E)>,
}

impl<T, E> UploadCall<T, E> {
    pub(in crate::client) fn new(
        core: &ClientCore,
        spec: &'static MethodSpec,
        body: Result<Bytes, CodecError>,
        uploaded: Option<Uploaded>,
    ) -> Self {
        let mut opening = opening(core, spec, body, uploaded);
        // It is sent no items.
        opening.window = Amount::default();
        Self {
            opening,
            answer: PhantomData,
        }
    }

    options!();
}

impl<T, E> IntoFuture for UploadCall<T, E>
where
    T: DeserializeOwned + 'static,
    E: ServiceError,
{
    type Output = Result<T, CallError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut opened = self.opening.run().await.map_err(CallError::of_reply)?;
            poll_fn(|cx| opened.reader.poll_begun(cx)).await;
            let answered = match opened.reader.take_last() {
                Some(Last::End(body)) => opened
                    .codec
                    .decode(opened.codec.body_or_unit(&body))
                    .map_err(CallError::Decode),
                Some(Last::Broken(broken)) => Err(failure(opened.subject.clone(), broken)),
                // A service that sends items where one answer is due.
                None => Err(CallError::Broken {
                    subject: opened.subject.clone(),
                    why: crate::StreamBreak::Malformed {
                        what: "it sent items, where one answer was due",
                    },
                }),
            };
            opened.says(answered.as_ref().err());
            answered
        })
    }
}

fn opening(
    core: &ClientCore,
    spec: &'static MethodSpec,
    body: Result<Bytes, CodecError>,
    uploaded: Option<Uploaded>,
) -> Opening {
    Opening {
        core: core.clone(),
        spec,
        body,
        timeout: core.timeout.unwrap_or(spec.timeout),
        window: WINDOW,
        pace: Pace::default(),
        upload: uploaded.map(|uploaded| uploaded.0),
    }
}

impl<T, E, O> fmt::Debug for StreamCall<T, E, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.opening.describe(f.debug_struct("StreamCall"))
    }
}

impl<T, E> fmt::Debug for UploadCall<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.opening.describe(f.debug_struct("UploadCall"))
    }
}

impl Opening {
    fn describe(&self, mut to: fmt::DebugStruct<'_, '_>) -> fmt::Result {
        to.field("subject", &self.core.subject(self.spec))
            .field("timeout", &self.timeout)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
