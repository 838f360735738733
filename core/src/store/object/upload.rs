//! Writing an object: chunks first, a bounded number of them on their way, then the metadata, then the old chunks go.
//!
//! The metadata is what makes an object; it is published only on top of the version that was seen. So of two uploads at
//! once each replaces what was there before it, and purges exactly that. Whatever ends an upload before its metadata,
//! its own chunks are purged: by itself, or by a task of its own when it is dropped.

use super::super::error::{Refusal, StoreError, other};
use super::super::stream::{Stream, back_off};
use super::info::{Meta, MetaOptions, ObjectInfo, chunk_subject, meta_subject, parse};
use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::publish::PublishAck;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use ring::digest::{Context as Digest, SHA256};
use std::future::IntoFuture as _;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The best size on file storage (measured); ADR-20's default as well.
const CHUNK: usize = 128 * 1024;
/// Chunks on their way: 4 MiB. Without a bound, large uploads fail on replicated buckets.
const WINDOW: usize = 32;
/// How often the metadata is published anew when others publish theirs in between.
const ATTEMPTS: u32 = 30;

/// Where the bytes come from.
pub(super) trait Source: Send {
    /// The next bytes: exactly `size` of them, fewer at the end, none after it.
    fn next(&mut self, size: usize) -> impl Future<Output = std::io::Result<Bytes>> + Send;
}

impl Source for Bytes {
    async fn next(&mut self, size: usize) -> std::io::Result<Bytes> {
        Ok(self.split_to(size.min(self.len())))
    }
}

pub(super) struct Reader<R>(pub(super) R);

impl<R: AsyncRead + Send + Unpin> Source for Reader<R> {
    async fn next(&mut self, size: usize) -> std::io::Result<Bytes> {
        // A reader hands over what it has; a chunk is filled all the same.
        let mut chunk = BytesMut::with_capacity(size);
        let mut rest = (&mut self.0).take(size as u64);
        while rest.read_buf(&mut chunk).await? > 0 {}
        Ok(chunk.freeze())
    }
}

/// The chunks of an object that does not exist yet.
struct Chunks {
    stream: Stream,
    nuid: String,
    in_flight: FuturesUnordered<BoxFuture<'static, Result<PublishAck, PublishError>>>,
    /// Something was sent that nothing refers to yet.
    orphans: bool,
}

impl Chunks {
    fn new(stream: &Stream) -> Self {
        let inbox = stream.js.client().new_inbox();
        Self {
            stream: stream.clone(),
            // The last token of an inbox is a fresh NUID.
            nuid: inbox.rsplit('.').next().unwrap_or(&inbox).to_owned(),
            in_flight: FuturesUnordered::new(),
            orphans: false,
        }
    }

    async fn send(&mut self, chunk: Bytes) -> Result<(), Refusal> {
        while self.in_flight.len() >= WINDOW {
            self.acknowledged().await?;
        }
        self.orphans = true;
        let subject = chunk_subject(self.stream.bucket(), &self.nuid);
        let ack = self.stream.send(subject, HeaderMap::new(), chunk).await?;
        self.in_flight.push(ack.into_future());
        Ok(())
    }

    async fn acknowledged(&mut self) -> Result<(), Refusal> {
        if let Some(ack) = self.in_flight.next().await {
            ack?;
        }
        Ok(())
    }

    async fn all_acknowledged(&mut self) -> Result<(), Refusal> {
        while !self.in_flight.is_empty() {
            self.acknowledged().await?;
        }
        Ok(())
    }

    /// Removes what was sent.
    async fn purge(mut self) {
        self.orphans = false;
        // A purge can overtake chunks that are on their way: first they arrive.
        while self.in_flight.next().await.is_some() {}
        purge_again(&self.stream, &self.nuid, 0).await;
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        if !self.orphans {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            tracing::warn!(stream = ?self.stream, nuid = self.nuid, "an upload ended without its runtime: its chunks stay");
            return;
        };
        let left = Self {
            stream: self.stream.clone(),
            nuid: std::mem::take(&mut self.nuid),
            in_flight: std::mem::take(&mut self.in_flight),
            orphans: false,
        };
        runtime.spawn(left.purge());
    }
}

/// Removes the chunks of an object that is no more. They cost room and nothing else, because nothing refers to them: so the
/// caller waits for one attempt, and others follow behind its back.
async fn purge_chunks(stream: &Stream, nuid: &str) {
    let subject = chunk_subject(stream.bucket(), nuid);
    let once = tokio::time::timeout(Duration::from_secs(2), stream.purge(&subject));
    if !matches!(once.await, Ok(Ok(()))) {
        let (stream, nuid) = (stream.clone(), nuid.to_owned());
        tokio::spawn(async move { purge_again(&stream, &nuid, 1).await });
    }
}

async fn purge_again(stream: &Stream, nuid: &str, begin: u32) {
    let subject = chunk_subject(stream.bucket(), nuid);
    for attempt in begin..6 {
        if attempt > 0 {
            let (base, max) = (Duration::from_millis(200), Duration::from_secs(5));
            tokio::time::sleep(back_off(attempt, base, max)).await;
        }
        match stream.purge(&subject).await {
            Ok(()) | Err(StoreError::BucketNotFound { .. } | StoreError::Sealed) => return,
            Err(error) => {
                tracing::debug!(?stream, nuid, %error, "chunks could not be purged yet");
            }
        }
    }
    tracing::warn!(
        ?stream,
        nuid,
        "the chunks of a replaced or failed object stay"
    );
}

/// Stores what `source` gives under `name`, in place of what is there.
pub(super) async fn upload(
    stream: &Stream,
    name: &str,
    headers: HeaderMap,
    mut source: impl Source,
) -> Result<ObjectInfo, StoreError> {
    let mut chunks = Chunks::new(stream);
    let meta = Meta {
        name: name.to_owned(),
        ..send_all(&mut chunks, &mut source).await?
    }
    .with_headers(&headers);
    // From here on it is a matter of moments, and a half-done state would be hard to undo: a task of its own ends it, even
    // when nobody waits any more.
    let committed = tokio::spawn(commit(chunks, meta)).await;
    committed.unwrap_or_else(|_| {
        // Cancelled with its runtime: nobody knows how far it came.
        Err(StoreError::Timeout)
    })
}

async fn send_all(chunks: &mut Chunks, source: &mut impl Source) -> Result<Meta, StoreError> {
    let max_payload = chunks.stream.js.client().max_payload();
    let size = CHUNK.min(max_payload.max(1));
    let mut digest = Digest::new(&SHA256);
    let mut meta = Meta {
        bucket: chunks.stream.bucket().to_owned(),
        nuid: chunks.nuid.clone(),
        options: Some(MetaOptions {
            link: None,
            max_chunk_size: Some(size as u64),
        }),
        ..Meta::default()
    };
    loop {
        let chunk = source.next(size).await.map_err(StoreError::Source)?;
        if chunk.is_empty() {
            break;
        }
        digest.update(&chunk);
        meta.size += chunk.len() as u64;
        meta.chunks += 1;
        if let Err(refusal) = chunks.send(chunk).await {
            return Err(chunks.stream.explain(refusal).await);
        }
    }
    if let Err(refusal) = chunks.all_acknowledged().await {
        return Err(chunks.stream.explain(refusal).await);
    }
    meta.digest = Some(digest_text(digest));
    Ok(meta)
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

/// Publishes the metadata, and then purges what it replaced.
async fn commit(mut chunks: Chunks, meta: Meta) -> Result<ObjectInfo, StoreError> {
    match replace(&chunks.stream, &meta).await {
        Ok(replaced) => {
            chunks.orphans = false;
            for nuid in replaced.nuids {
                purge_chunks(&chunks.stream, &nuid).await;
            }
            Ok(meta.into_info(replaced.revision, SystemTime::now()))
        }
        Err(Failed::Unknown) => {
            // The metadata may be there, and must not refer to chunks that are gone.
            chunks.orphans = false;
            Err(StoreError::Timeout)
        }
        // What was sent is purged when `chunks` is dropped.
        Err(Failed::Refused(error)) => Err(error),
    }
}

/// What new metadata took the place of.
struct Replaced {
    revision: u64,
    /// The versions whose chunks nothing refers to any more.
    nuids: Vec<String>,
}

enum Failed {
    /// The metadata is not there.
    Refused(StoreError),
    /// It may be there, or come yet.
    Unknown,
}

/// Publishes metadata on top of whatever is there.
async fn replace(stream: &Stream, meta: &Meta) -> Result<Replaced, Failed> {
    let subject = meta_subject(stream.bucket(), &meta.name);
    let body = serde_json::to_vec(meta).map_err(|error| Failed::Refused(other(&error)))?;
    let body = Bytes::from(body);
    // The versions that an attempt without an answer may have replaced.
    let mut nuids = Vec::new();
    let mut unknown = false;
    let mut failed = StoreError::Timeout;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            let (base, max) = (Duration::from_millis(10), Duration::from_secs(1));
            tokio::time::sleep(back_off(attempt, base, max)).await;
        }
        let last = match stream.last(&subject).await {
            Ok(last) => last,
            Err(_) if unknown => return Err(Failed::Unknown),
            Err(error) => return Err(Failed::Refused(error)),
        };
        let expected = last.as_ref().map_or(0, |last| last.sequence);
        let there = last.as_ref().and_then(|last| parse(last).ok());
        if let Some(there) = there.filter(|there| there.link.is_none()) {
            if unknown && there.nuid == meta.nuid && there.deleted == meta.deleted {
                // An attempt without an answer had its effect.
                return Ok(Replaced {
                    revision: expected,
                    nuids,
                });
            }
            if there.nuid != meta.nuid && !there.nuid.is_empty() && !nuids.contains(&there.nuid) {
                nuids.push(there.nuid);
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
        let published = stream.publish(subject.clone(), headers, body.clone());
        match published.await {
            Ok(revision) => return Ok(Replaced { revision, nuids }),
            Err(Refusal::WrongLastSequence(current)) => {
                failed = StoreError::Conflict {
                    key: meta.name.clone(),
                    expected,
                    current,
                };
            }
            // Conditional on the same revision, a repetition is harmless.
            Err(Refusal::Other(StoreError::Timeout)) => {
                unknown = true;
                if attempt >= 2 {
                    break;
                }
            }
            Err(_) if unknown => break,
            Err(refusal) => return Err(Failed::Refused(stream.explain(refusal).await)),
        }
    }
    Err(if unknown {
        Failed::Unknown
    } else {
        Failed::Refused(failed)
    })
}

/// Deletes the object: whether there was one.
pub(super) async fn delete(stream: &Stream, name: &str) -> Result<bool, StoreError> {
    let there = super::info::fetch(stream, name).await?;
    let Some(there) = there.filter(|there| !there.deleted) else {
        return Ok(false);
    };
    let meta = Meta {
        name: name.to_owned(),
        bucket: stream.bucket().to_owned(),
        nuid: there.nuid,
        description: there.description,
        deleted: true,
        ..Meta::default()
    }
    .with_headers(&there.headers);
    match replace(stream, &meta).await {
        Ok(replaced) => {
            for nuid in replaced.nuids.iter().chain([&meta.nuid]) {
                purge_chunks(stream, nuid).await;
            }
            Ok(true)
        }
        Err(Failed::Unknown) => Err(StoreError::Timeout),
        Err(Failed::Refused(error)) => Err(error),
    }
}
