//! Writing an object: chunks first, then the metadata, then the old chunks go.
//!
//! The metadata is what makes an object. Whatever ends an upload before it, its own chunks are purged (or stay, when the
//! upload may go on later); whatever it replaced goes when it is there.

use super::super::error::StoreError;
use super::super::stream::Stream;
use super::commit::{Current, Expected, Failed, commit, current, purge_versions, to_the_end};
use super::content;
use super::info::{Meta, MetaOptions, ObjectInfo, ObjectMeta, chunk_subject};
use super::progress::{Meter, OnProgress, Progress};
use super::resume::{self, UploadToken};
use super::source::{Reader, Source};
use super::window::Chunks;
use crate::wire::header::CONTENT_TYPE;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use ring::digest::{Context as Digest, SHA256};
use std::fmt;
use tokio::io::AsyncRead;

/// A message of that size, headers included, just fits a buffer of 128 KiB, as clients and servers have them that double theirs
/// until a message fits. With ADR-20's 128 KiB a buffer is twice as large, and its content is copied twice for each chunk.
const CHUNK: usize = 127 * 1024;
/// What a chunk's headers take of a message, at most.
const HEADERS: usize = 512;

/// An upload, before it begins: [`ObjectKey::upload`](crate::ObjectKey::upload).
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_object_store(nats_service::async_nats::jetstream::object_store::Config { bucket: "files".into(), ..Default::default() }).await?;
/// let files = nats_service::ObjectStore::<()>::bind(js, "files")?;
/// let object = files.object("a page")?;
/// let first = object.upload().content_type("text/html").description("the start").read_from(&b"<p>"[..]).await?;
/// // Only on top of that one:
/// let second = object.upload().if_revision(first.revision).bytes("<br>").await?;
/// assert!(object.upload().if_revision(first.revision).bytes("<hr>").await.is_err());
/// assert!(second.revision > first.revision);
/// # Ok(()) }
/// ```
#[must_use = "nothing is sent before `read_from` or `bytes`"]
pub struct Upload {
    stream: Stream,
    name: String,
    nuid: String,
    meta: ObjectMeta,
    chunk_size: usize,
    expected: Expected,
    total: Option<u64>,
    on_progress: Option<OnProgress>,
    /// Chunks stay when it fails.
    resumable: bool,
    /// Chunks of an earlier attempt may be there.
    resumes: bool,
    shared: bool,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("stream", &self.stream)
            .field("name", &self.name)
            .field("nuid", &self.nuid)
            .finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn new(stream: &Stream, name: &str) -> Self {
        Self {
            stream: stream.clone(),
            name: name.to_owned(),
            nuid: fresh_nuid(stream),
            meta: ObjectMeta::default(),
            chunk_size: CHUNK,
            expected: Expected::Anything,
            total: None,
            on_progress: None,
            resumable: false,
            resumes: false,
            shared: false,
        }
    }

    pub(super) fn resume(stream: &Stream, token: &UploadToken) -> Self {
        Self {
            nuid: token.nuid.clone(),
            chunk_size: token.chunk_size,
            resumable: true,
            resumes: true,
            ..Self::new(stream, &token.name)
        }
    }

    /// What is said of the object besides its bytes, in place of all that was said before.
    pub fn meta(mut self, meta: ObjectMeta) -> Self {
        self.meta = meta;
        self
    }

    /// What it is for.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.meta.description = Some(description.into());
        self
    }

    /// Its `Content-Type`. Text that cannot stand in a header is left out.
    pub fn content_type(mut self, content_type: &str) -> Self {
        if let Ok(value) = content_type.parse::<async_nats::HeaderValue>() {
            self.meta.headers.insert(CONTENT_TYPE, value);
        }
        self
    }

    /// Bytes of every chunk but the last, 127 KiB unless it is set, or set to 0; no more than a message holds. Small chunks are
    /// slow, and larger ones are no faster.
    pub fn chunk_size(mut self, bytes: usize) -> Self {
        self.chunk_size = if bytes == 0 { CHUNK } else { bytes };
        self
    }

    /// Only where there is no object of this name, or a deleted one; otherwise [`StoreError::Conflict`].
    pub fn if_absent(mut self) -> Self {
        self.expected = Expected::Absent;
        self
    }

    /// Only in place of this revision of the object ([`ObjectInfo::revision`]); otherwise [`StoreError::Conflict`].
    pub fn if_revision(mut self, revision: u64) -> Self {
        self.expected = Expected::Revision(revision);
        self
    }

    /// How many bytes there will be, for [`Progress::total`]. Nothing else depends on it.
    pub fn total(mut self, bytes: u64) -> Self {
        self.total = Some(bytes);
        self
    }

    /// Is told how far it is, each time that more bytes are acknowledged. It runs in the upload, so it must not block.
    pub fn on_progress(mut self, on_progress: impl FnMut(Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(on_progress));
        self
    }

    /// Chunks that are stored stay when the upload fails, is dropped, or its process is killed, and another one goes on from
    /// there: keep [`token`](Self::token) before it begins.
    ///
    /// What is never gone on with, [`ObjectStore::remove_orphans`](crate::ObjectStore::remove_orphans) removes. Not together
    /// with [`shared`](Self::shared): the one that is said last counts.
    pub fn resumable(mut self) -> Self {
        self.resumable = true;
        self.shared = false;
        self
    }

    /// What [`ObjectStore::resume`](crate::ObjectStore::resume) goes on with: text that can be kept in a file.
    #[must_use]
    pub fn token(&self) -> UploadToken {
        UploadToken {
            bucket: self.stream.bucket().to_owned(),
            name: self.name.clone(),
            nuid: self.nuid.clone(),
            chunk_size: self.chunk_size,
        }
    }

    /// Stores equal bytes once in the bucket, whatever names they have: the object becomes a link to them.
    ///
    /// See [`ObjectStore::remove_unshared`](crate::ObjectStore::remove_unshared) for what becomes of bytes that no name has
    /// any more. With [`bytes`](Self::bytes) nothing is sent that is there already; a reader has to be read to its end
    /// first. An upload that goes on is not shared.
    pub fn shared(mut self) -> Self {
        self.shared = !self.resumes;
        self.resumable = self.resumes;
        self
    }

    /// Stores all that the reader gives, in place of what is there. At most 4 MiB of it are in memory at a time.
    ///
    /// A broken connection and the election of a leader are waited out, as long as some chunk gets further in 30 s.
    ///
    /// # Errors
    /// When the reader fails, a write is refused or the condition does not hold: then nothing has changed. After
    /// [`StoreError::Timeout`] the new object may be there.
    pub async fn read_from(
        self,
        reader: impl AsyncRead + Send + Unpin,
    ) -> Result<ObjectInfo, StoreError> {
        self.run(Reader(reader)).await
    }

    /// The same, for bytes that are at hand.
    ///
    /// # Errors
    /// As [`read_from`](Self::read_from).
    pub async fn bytes(mut self, bytes: impl Into<Bytes>) -> Result<ObjectInfo, StoreError> {
        let bytes = bytes.into();
        self.total.get_or_insert(bytes.len() as u64);
        if self.shared {
            let digest = digest_of(&bytes);
            content::refuse(&self.name)?;
            if let Some(size) = content::renew(&self.stream, &digest).await? {
                let link = self.described(content::link(&self.stream, &digest, size));
                let (stream, expected) = (self.stream.clone(), self.expected);
                return to_the_end(async move { content::publish(&stream, link, expected).await })
                    .await;
            }
        }
        self.run(bytes).await
    }

    /// Gives an upload up that was to go on later, and removes its chunks.
    ///
    /// # Errors
    /// When the bucket cannot be read, or the chunks cannot be purged.
    pub async fn abandon(self) -> Result<(), StoreError> {
        let finished = resume::finished(&self.stream, &self.name, &self.nuid).await?;
        if finished.is_some() {
            return Ok(());
        }
        self.stream
            .purge(&chunk_subject(self.stream.bucket(), &self.nuid))
            .await
    }

    async fn run(mut self, mut source: impl Source) -> Result<ObjectInfo, StoreError> {
        content::refuse(&self.name)?;
        let mut meter = Meter::new(self.on_progress.take(), self.total);
        if self.resumes {
            let finished = resume::finished(&self.stream, &self.name, &self.nuid).await?;
            if let Some(info) = finished {
                // It had come to its end, and nobody heard of it.
                return Ok(info);
            }
        } else if self.expected != Expected::Anything {
            // It is compared again at the end; but why send it all first?
            let (name, expected) = (&self.name, self.expected);
            let holds = |there: Option<Current>| expected.check(name, there.as_ref());
            current(&self.stream, name, holds).await?;
        }
        let mut chunks = Chunks::new(&self.stream, self.nuid.clone(), self.resumable);
        let sent = match self.send_all(&mut chunks, &mut source, &mut meter).await {
            Ok(sent) => sent,
            Err(error) => {
                if self.resumable && matches!(error, StoreError::Source(_)) {
                    // What is on its way need not be sent again; and what is wrong with it matters no more.
                    let _ = chunks.finish().await;
                }
                return Err(error);
            }
        };
        let (meta, expected) = (self.described(sent), self.expected);
        if self.shared {
            return to_the_end(content::share(chunks, meta, expected)).await;
        }
        to_the_end(finish(chunks, meta, expected)).await
    }

    fn described(&self, sent: Meta) -> Meta {
        Meta {
            name: self.name.clone(),
            ..sent
        }
        .described(&self.meta)
    }

    async fn send_all(
        &mut self,
        chunks: &mut Chunks,
        source: &mut impl Source,
        meter: &mut Meter,
    ) -> Result<Meta, StoreError> {
        let max_payload = self.stream.js.client().max_payload();
        let size = self
            .chunk_size
            .min(max_payload.saturating_sub(HEADERS))
            .max(1);
        let mut sent = Sent::default();
        if self.resumes {
            chunks.fresh_ids();
            let rest = resume::match_stored(chunks, source, size, &mut sent).await?;
            meter.resumed(sent.size);
            if let Some(chunk) = rest {
                self.send_one(chunks, &mut sent, chunk).await?;
            }
        }
        loop {
            let chunk = source.next(size).await.map_err(StoreError::Source)?;
            if chunk.is_empty() {
                break;
            }
            self.send_one(chunks, &mut sent, chunk).await?;
            meter.at(chunks.stored);
        }
        chunks.finish().await?;
        meter.at(chunks.stored);
        if chunks.mended {
            resume::count(chunks, sent.chunks).await?;
        }
        Ok(Meta {
            bucket: self.stream.bucket().to_owned(),
            nuid: self.nuid.clone(),
            size: sent.size,
            chunks: sent.chunks,
            digest: Some(digest_text(sent.digest)),
            options: Some(MetaOptions {
                max_chunk_size: Some(size as u64),
                ..MetaOptions::default()
            }),
            ..Meta::default()
        })
    }

    async fn send_one(
        &mut self,
        chunks: &mut Chunks,
        sent: &mut Sent,
        chunk: Bytes,
    ) -> Result<(), StoreError> {
        sent.add(&chunk);
        let prefix = self.resumable.then(|| digest_text(sent.digest.clone()));
        chunks.send(chunk, prefix).await
    }
}

/// What of the source has gone into chunks.
pub(super) struct Sent {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) chunks: u64,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            digest: Digest::new(&SHA256),
            size: 0,
            chunks: 0,
        }
    }
}

impl Sent {
    pub(super) fn add(&mut self, chunk: &[u8]) {
        self.digest.update(chunk);
        self.size += chunk.len() as u64;
        self.chunks += 1;
    }
}

/// Publishes the metadata, and then purges what it replaced.
pub(super) async fn finish(
    mut chunks: Chunks,
    meta: Meta,
    expected: Expected,
) -> Result<ObjectInfo, StoreError> {
    let name = meta.name.clone();
    let committed = commit(&chunks.stream, &name, |there| {
        expected.check(&name, there)?;
        Ok(meta.clone())
    });
    match committed.await {
        Ok(committed) => {
            chunks.orphans = false;
            purge_versions(&chunks.stream, committed.replaced).await;
            Ok(committed.info)
        }
        Err(failed) => {
            // The metadata may be there, and must not refer to chunks that are gone. Otherwise what was sent is purged
            // when `chunks` is dropped.
            if matches!(failed, Failed::Unknown) {
                chunks.orphans = false;
            }
            Err(failed.into())
        }
    }
}

/// An identity that no other version of any object has.
pub(super) fn fresh_nuid(stream: &Stream) -> String {
    // The last token of an inbox is a fresh NUID.
    let inbox = stream.js.client().new_inbox();
    inbox.rsplit('.').next().unwrap_or(&inbox).to_owned()
}

/// As it stands in the metadata: `SHA-256=` and padded base64url.
pub(super) fn digest_text(digest: Digest) -> String {
    format!("SHA-256={}", URL_SAFE.encode(digest.finish()))
}

/// The digest of bytes that are at hand.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    let mut digest = Digest::new(&SHA256);
    digest.update(bytes);
    digest_text(digest)
}
