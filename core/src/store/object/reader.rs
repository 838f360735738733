//! Reading an object, chunk by chunk, and noticing whatever is wrong with it.
//!
//! Every chunk is counted and goes into the digest before it is handed over; the last one only when the digest is right.
//! So a reader that came to the end has the bytes that were stored, and any other end is an error.

use super::super::consumer::{
    Deliveries, Delivery, Options, OrderedConsumer, READ_HEARTBEAT, Start,
};
use super::super::error::StoreError;
use super::super::stream::{Stream, check_bucket};
use super::info::{ObjectInfo, chunk_subject, fetch};
use super::upload::digest_text;
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ring::digest::{Context as Digest, SHA256};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// The bytes of an object, as they come: an [`AsyncRead`].
///
/// It holds what flow control lets through, at most some tens of MiB, whatever the object's size. When the bytes are not
/// those that were stored, or the object is overwritten or deleted meanwhile, its last item is an [`io::Error`] that carries
/// the [`StoreError`]; it never ends early as if all were well, and never waits for what cannot come.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_object_store(nats_service::async_nats::jetstream::object_store::Config { bucket: "files".into(), ..Default::default() }).await?;
/// use tokio::io::AsyncReadExt;
///
/// let files = nats_service::ObjectStore::<()>::bind(js, "files")?;
/// let object = files.object("a file")?;
/// object.put_reader(&b"its bytes"[..]).await?;
/// let mut reader = object.reader().await?.ok_or("gone")?;
/// let mut text = String::new();
/// reader.read_to_string(&mut text).await?;
/// assert_eq!(text, "its bytes");
/// # Ok(()) }
/// ```
pub struct ObjectReader {
    info: ObjectInfo,
    chunks: BoxStream<'static, Result<Bytes, StoreError>>,
    chunk: Bytes,
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReader")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl ObjectReader {
    /// The object that it reads.
    #[must_use]
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// The next chunk, without a copy; `None` after the last.
    ///
    /// # Errors
    /// [`StoreError::Digest`] or [`StoreError::ObjectChanged`], and nothing comes after it.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.chunk.is_empty() {
            return self.chunks.next().await.transpose();
        }
        Ok(Some(std::mem::take(&mut self.chunk)))
    }

    /// All that is left.
    pub(crate) async fn into_bytes(mut self) -> Result<Bytes, StoreError> {
        let first = self.next_chunk().await?.unwrap_or_default();
        if first.len() as u64 >= self.info.size {
            // One chunk, verified: nothing follows it.
            return Ok(first);
        }
        // The size is somebody's claim: memory beyond the first part is taken as the bytes come.
        let size = usize::try_from(self.info.size).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::with_capacity(size.min(64 << 20));
        bytes.extend_from_slice(&first);
        while let Some(chunk) = self.next_chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

impl AsyncRead for ObjectReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            match ready!(self.chunks.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = buffer.remaining().min(self.chunk.len());
        if let Some(part) = self.chunk.get(..length) {
            buffer.put_slice(part);
        }
        self.chunk.advance(length);
        Poll::Ready(Ok(()))
    }
}

fn into_io(error: StoreError) -> io::Error {
    let kind = match error {
        StoreError::Digest { .. } => io::ErrorKind::InvalidData,
        StoreError::ObjectChanged { .. } => io::ErrorKind::UnexpectedEof,
        StoreError::Timeout => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Opens the object; `None` when there is none, or it is deleted.
pub(super) async fn open(stream: &Stream, name: &str) -> Result<Option<ObjectReader>, StoreError> {
    let there = |info: &ObjectInfo| !info.deleted;
    let Some(info) = fetch(stream, name).await?.filter(there) else {
        return Ok(None);
    };
    let Some(link) = info.link else {
        return Ok(Some(reader(stream.clone(), info).await?));
    };
    let broken = |reason: &str| StoreError::Digest {
        name: name.to_owned(),
        reason: reason.to_owned(),
    };
    let Some(target) = link.name else {
        return Err(broken("it is a link to a whole bucket"));
    };
    check_bucket(&link.bucket)?;
    let other = super::stream(stream.js.clone(), &link.bucket);
    match fetch(&other, &target).await?.filter(there) {
        None => Ok(None),
        // ADR-20 knows no link to a link, and following one could go on for ever.
        Some(info) if info.link.is_some() => Err(broken("it is a link to a link")),
        Some(info) => Ok(Some(reader(other, info).await?)),
    }
}

async fn reader(stream: Stream, info: ObjectInfo) -> Result<ObjectReader, StoreError> {
    let deliveries = if info.chunks == 0 {
        None
    } else {
        let options = Options {
            filters: vec![chunk_subject(stream.bucket(), &info.nuid)],
            start: Start::All,
            headers_only: false,
            heartbeat: READ_HEARTBEAT,
        };
        Some(
            OrderedConsumer::open(stream.clone(), options)
                .await?
                .into_stream(),
        )
    };
    let verified = Verified {
        stream,
        info: info.clone(),
        deliveries,
        digest: Some(Digest::new(&SHA256)),
        chunks: 0,
        size: 0,
    };
    let next = |mut verified: Verified| async move {
        let item = verified.next().await?;
        Some((item, verified))
    };
    Ok(ObjectReader {
        info,
        chunks: futures_util::stream::unfold(verified, next).fuse().boxed(),
        chunk: Bytes::new(),
    })
}

/// The chunks of one version of an object, counted and verified.
struct Verified {
    stream: Stream,
    info: ObjectInfo,
    /// `None` when nothing more is to be read.
    deliveries: Option<Deliveries>,
    /// `None` once it was compared, or an error was said.
    digest: Option<Digest>,
    chunks: u64,
    size: u64,
}

impl Verified {
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let mut digest = self.digest.take()?;
        let Some(deliveries) = &mut self.deliveries else {
            // An empty object: nothing to read, but a digest to compare.
            return self.compare(digest).err().map(Err);
        };
        let chunk = match deliveries.next().await {
            Some(Ok(Delivery::Message(stored, _))) => stored.payload,
            Some(Err(error)) => return Some(Err(error)),
            Some(Ok(Delivery::CaughtUp)) | None => return Some(Err(self.missing().await)),
        };
        digest.update(&chunk);
        self.chunks += 1;
        self.size += chunk.len() as u64;
        if self.chunks < self.info.chunks {
            self.digest = Some(digest);
            return Some(Ok(chunk));
        }
        self.deliveries = None;
        Some(self.compare(digest).map(|()| chunk))
    }

    fn compare(&self, digest: Digest) -> Result<(), StoreError> {
        let found = digest_text(digest);
        if self.size != self.info.size {
            let reason = format!("{} bytes came of {}", self.size, self.info.size);
            return Err(self.damaged(reason));
        }
        match &self.info.digest {
            // Some clients pad the base64 and some do not.
            Some(digest) if digest.trim_end_matches('=') != found.trim_end_matches('=') => {
                Err(self.damaged(format!("its digest is {found} and not {digest}")))
            }
            _ => Ok(()),
        }
    }

    /// Why chunks are missing: somebody replaced the object, or they are lost.
    async fn missing(&mut self) -> StoreError {
        match fetch(&self.stream, &self.info.name).await {
            Ok(Some(now)) if now.nuid == self.info.nuid && !now.deleted => self.damaged(format!(
                "{} chunks came of {}",
                self.chunks, self.info.chunks
            )),
            Ok(_) => StoreError::ObjectChanged {
                name: self.info.name.clone(),
            },
            Err(error) => error,
        }
    }

    fn damaged(&self, reason: String) -> StoreError {
        StoreError::Digest {
            name: self.info.name.clone(),
            reason,
        }
    }
}
