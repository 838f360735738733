//! Reading an object, chunk by chunk, and noticing whatever is wrong with it.
//!
//! Every chunk is counted and goes into the digest before it is handed over; the last one only when the digest is right.
//! So a reader that came to the end has the bytes that were stored, and any other end is an error. A range is counted only:
//! its bytes have no digest of their own.

use super::super::error::StoreError;
use super::super::stream::{Stream, check_bucket};
use super::content::is_content;
use super::fetch::{Fetch, Left};
use super::info::{ObjectInfo, chunk_subject, fetch};
use super::locate::locate;
use super::progress::{Meter, Progress};
use super::upload::digest_text;
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ring::digest::{Context as Digest, SHA256};
use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// The bytes of an object, as they come: an [`AsyncRead`], and a stream of chunks.
///
/// It holds 10 MiB at most, whatever the object's size, and goes on where it was when the connection breaks. When the bytes
/// are not those that were stored, or the object is overwritten or deleted meanwhile, its last item is an [`io::Error`] that carries
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
    /// How many bytes it gives, all in all, and has given.
    length: u64,
    given: u64,
    meter: Option<Meter>,
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
        self.next().await.transpose()
    }

    /// How many bytes it gives, all in all: the object's size, or the length of the range.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Is told how far it is, each time that a chunk has come. It runs in the reader, so it must not block.
    #[must_use]
    pub fn on_progress(mut self, on_progress: impl FnMut(Progress) + Send + 'static) -> Self {
        self.meter = Some(Meter::new(Some(Box::new(on_progress)), Some(self.length)));
        self
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StoreError>>> {
        let chunk = ready!(self.chunks.poll_next_unpin(cx));
        if let Some(Ok(chunk)) = &chunk {
            self.given += chunk.len() as u64;
            if let Some(meter) = &mut self.meter {
                meter.at(self.given);
            }
        }
        Poll::Ready(chunk)
    }

    /// All that is left.
    pub(crate) async fn into_bytes(mut self) -> Result<Bytes, StoreError> {
        let first = self.next_chunk().await?.unwrap_or_default();
        if first.len() as u64 >= self.length {
            // One chunk, verified: nothing follows it.
            return Ok(first);
        }
        // The size is somebody's claim: memory beyond the first part is taken as the bytes come.
        let size = usize::try_from(self.length).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::with_capacity(size.min(64 << 20));
        bytes.extend_from_slice(&first);
        while let Some(chunk) = self.next_chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

impl futures_util::Stream for ObjectReader {
    type Item = Result<Bytes, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.chunk.is_empty() {
            return self.poll_chunk(cx);
        }
        Poll::Ready(Some(Ok(std::mem::take(&mut self.chunk))))
    }
}

impl AsyncRead for ObjectReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            match ready!(self.poll_chunk(cx)) {
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

/// What is to be read of an object.
pub(super) enum Part {
    Whole,
    /// These bytes, which are cut at the object's end.
    Range(Range<u64>),
    /// What comes after bytes that are here already, with their digest so far.
    After(Box<Digest>, u64),
}

/// Reads to its end what of an object is here already.
pub(super) async fn after(mut prefix: impl AsyncRead + Send + Unpin) -> io::Result<Part> {
    let (mut digest, mut size) = (Digest::new(&SHA256), 0);
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    while prefix.read_buf(&mut buffer).await? > 0 {
        digest.update(&buffer);
        size += buffer.len() as u64;
        buffer.clear();
    }
    Ok(Part::After(Box::new(digest), size))
}

/// Opens the object; `None` when there is none, or it is deleted.
pub(super) async fn open(
    stream: &Stream,
    name: &str,
    part: Part,
) -> Result<Option<ObjectReader>, StoreError> {
    let there = |info: &ObjectInfo| !info.deleted;
    let Some(info) = fetch(stream, name).await?.filter(there) else {
        return Ok(None);
    };
    let Some(link) = info.link.clone() else {
        return Ok(Some(reader(stream.clone(), info, part).await?));
    };
    let broken = |reason| StoreError::Link {
        name: name.to_owned(),
        reason,
    };
    let Some(target) = link.name else {
        return Err(broken(
            "is a link to a whole bucket: bind a store to that, it is in `ObjectInfo::link`",
        ));
    };
    check_bucket(&link.bucket)?;
    let other = super::stream(stream.js.clone(), &link.bucket);
    match fetch(&other, &target).await?.filter(there) {
        None => Ok(None),
        // ADR-20 knows no link to a link, and following one could go on for ever.
        Some(info) if info.link.is_some() => Err(broken(
            "is a link to a link, which is not followed: link to the object itself",
        )),
        Some(found) => {
            let mut reader = reader(other, found, part).await?;
            if is_content(&target) {
                // What is said of the object is said of this name; what it is linked to has bytes only.
                let nuid = std::mem::take(&mut reader.info.nuid);
                let chunks = reader.info.chunks;
                reader.info = ObjectInfo {
                    nuid,
                    chunks,
                    size: reader.info.size,
                    digest: reader.info.digest.take(),
                    ..info
                };
            }
            Ok(Some(reader))
        }
    }
}

async fn reader(stream: Stream, info: ObjectInfo, part: Part) -> Result<ObjectReader, StoreError> {
    let size = info.size;
    let refuse = |start, end| StoreError::Range { start, end, size };
    let (range, digest) = match part {
        Part::Whole => (0..size, Some(Digest::new(&SHA256))),
        Part::Range(range) if range.start > range.end || range.start > size => {
            return Err(refuse(range.start, range.end));
        }
        Part::Range(range) => (range.start..range.end.min(size), None),
        Part::After(_, start) if start > size => return Err(refuse(start, size)),
        Part::After(digest, start) => (start..size, Some(*digest)),
    };
    let length = range.end - range.start;
    let subject = chunk_subject(stream.bucket(), &info.nuid);
    // A rough size; whoever claims another one makes his own object slow.
    let typical = size.div_ceil(info.chunks.max(1));
    let mut verified = Verified {
        info: info.clone(),
        fetch: None,
        skip: 0,
        left: length,
        digest,
        chunks: 0,
        ended: false,
        stream: stream.clone(),
    };
    if length > 0 && range == (0..size) {
        let left = Left::Chunks(info.chunks);
        verified.fetch = Some(Fetch::new(stream, subject, 0, left, typical));
    } else if length > 0 {
        let Some(place) = locate(&stream, &info, range.start).await? else {
            return Err(verified.missing().await);
        };
        let largest = info.chunk_size.filter(|&size| size > 0);
        let largest = largest.unwrap_or(stream.js.client().max_payload() as u64);
        let left = Left::Bytes(place.skip + length, largest);
        verified.skip = place.skip;
        verified.fetch = Some(Fetch::new(stream, subject, place.sequence, left, typical));
    }
    let next = |mut verified: Verified| async move {
        let item = verified.next().await?;
        Some((item, verified))
    };
    Ok(ObjectReader {
        info,
        chunks: futures_util::stream::unfold(verified, next).fuse().boxed(),
        chunk: Bytes::new(),
        length,
        given: 0,
        meter: None,
    })
}

/// The chunks of one version of an object, counted and verified.
struct Verified {
    stream: Stream,
    info: ObjectInfo,
    /// `None` when nothing more is to be read.
    fetch: Option<Fetch>,
    /// Bytes of the first chunk that were not asked for.
    skip: u64,
    /// Bytes that are still to be handed over.
    left: u64,
    /// `None` for a range.
    digest: Option<Digest>,
    chunks: u64,
    /// The digest was compared, or an error was said.
    ended: bool,
}

impl Verified {
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        if self.ended {
            return None;
        }
        let item = self.step().await;
        self.ended |= !matches!(item, Some(Ok(_))) || self.left == 0;
        item
    }

    async fn step(&mut self) -> Option<Result<Bytes, StoreError>> {
        let Some(fetch) = &mut self.fetch else {
            // Nothing to read, but a digest to compare.
            return self.compare().err().map(Err);
        };
        let mut chunk = match fetch.next().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Some(Err(self.missing().await)),
            Err(error) => return Some(Err(error)),
        };
        self.chunks += 1;
        let skipped = usize::try_from(std::mem::take(&mut self.skip)).unwrap_or(usize::MAX);
        chunk.advance(skipped.min(chunk.len()));
        match &mut self.digest {
            Some(digest) => digest.update(&chunk),
            None => chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX)),
        }
        let Some(left) = self.left.checked_sub(chunk.len() as u64) else {
            return Some(Err(
                self.damaged("there are more bytes than there should be".to_owned())
            ));
        };
        self.left = left;
        if left > 0 {
            return Some(Ok(chunk));
        }
        self.fetch = None;
        Some(self.compare().map(|()| chunk))
    }

    fn compare(&mut self) -> Result<(), StoreError> {
        let Some(digest) = self.digest.take() else {
            return Ok(());
        };
        let found = digest_text(digest);
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
                "{} chunks came of {}, and {} bytes are missing",
                self.chunks, self.info.chunks, self.left
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
