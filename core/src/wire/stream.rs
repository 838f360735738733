//! An answer that is produced while it is stored, and read while it is fetched.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// An answer of any size, as bytes: the service writes it into its object store as it is produced, and the client reads it
/// from there as it comes. Neither holds more than a few MiB of it.
///
/// Only an `#[object_store(..)]` method can answer with one. The reply is sent when the object is whole. The method's time-out
/// bounds the production; the client's reader ends with an error when the object was damaged or replaced meanwhile.
///
/// ```
/// # use nats_service_testkit::TestServer;
/// use nats_service::async_nats::{self, jetstream};
/// use nats_service::{ByteStream, Error, Server, nats_service};
/// use tokio::io::AsyncReadExt as _;
///
/// #[nats_service]
/// trait Exports {
///     #[object_store(bucket = "exports", key = "table.<name>")]
///     async fn table(&self, name: String) -> Result<ByteStream, Error>;
/// }
///
/// struct Zeros;
/// impl Exports for Zeros {
///     async fn table(&self, _name: String) -> Result<ByteStream, Error> {
///         Ok(ByteStream::new(tokio::io::repeat(0).take(3_000_000)))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = TestServer::start().await?;
/// let nats = async_nats::connect(server.url()).await?;
/// let js = jetstream::new(nats.clone());
/// let running = Server::new(nats.clone()).with_jetstream(js).serve(ExportsServer::new(Zeros)).start().await?;
///
/// let mut table = ExportsClient::new(nats).table("a".to_string()).await?;
/// let mut bytes = Vec::new();
/// table.read_to_end(&mut bytes).await?;
/// assert_eq!(bytes.len(), 3_000_000);
/// # running.shutdown(std::time::Duration::from_secs(10)).await?; Ok(()) }
/// ```
pub struct ByteStream {
    reader: Pin<Box<dyn AsyncRead + Send>>,
}

impl ByteStream {
    /// The bytes that this reader gives. A stream of chunks becomes a reader by `tokio_util::io::StreamReader`.
    pub fn new(reader: impl AsyncRead + Send + 'static) -> Self {
        Self {
            reader: Box::pin(reader),
        }
    }

    /// Whether `T` is this type.
    pub(crate) fn is<T: 'static>() -> bool {
        std::any::TypeId::of::<T>() == std::any::TypeId::of::<Self>()
    }

    /// The stream that `answer` is, if it is one; an empty one takes its place.
    ///
    /// Serde cannot carry a stream, and a trait of our own for answers could not have both "whatever is `Serialize`" and this:
    /// so it is asked for by its type, here and in `put_into`, and nowhere else.
    pub(crate) fn take_from(answer: &mut dyn Any) -> Option<Self> {
        let stream = answer.downcast_mut::<Self>()?;
        Some(std::mem::replace(stream, Self::new(tokio::io::empty())))
    }

    /// Puts it into `answer`, where that is a place for one: an `Option<ByteStream>`. Says whether it is.
    pub(crate) fn put_into(self, answer: &mut dyn Any) -> bool {
        let Some(answer) = answer.downcast_mut::<Option<Self>>() else {
            return false;
        };
        *answer = Some(self);
        true
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reader.as_mut().poll_read(cx, buffer)
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").finish_non_exhaustive()
    }
}

const NO_VALUE: &str = "a `ByteStream` is the whole answer of an `#[object_store(..)]` method, and no part of a message";

impl Serialize for ByteStream {
    /// Always an error: answers are serializable, and this one is read instead.
    fn serialize<S: Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom(NO_VALUE))
    }
}

impl<'de> Deserialize<'de> for ByteStream {
    /// Always an error, as for serializing.
    fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(NO_VALUE))
    }
}

#[cfg(test)]
mod tests {
    use super::ByteStream;

    #[test]
    fn a_stream_is_told_from_any_other_answer() {
        assert!(ByteStream::take_from(&mut ByteStream::new(tokio::io::empty())).is_some());
        assert!(ByteStream::take_from(&mut "text".to_owned()).is_none());
        let (mut place, mut other) = (None::<ByteStream>, None::<u8>);
        assert!(ByteStream::new(tokio::io::empty()).put_into(&mut place) && place.is_some());
        assert!(!ByteStream::new(tokio::io::empty()).put_into(&mut other));
    }
}
