//! Going on with an upload that was interrupted: what of its chunks is there, and is right.
//!
//! Every chunk of a resumable upload says the digest of the object up to its own end. So the source is read once more from its
//! start, and compared with what is stored without fetching that: what fits is kept, and from the first chunk that does not
//! fit the rest is sent anew.

use super::super::consumer::{Delivery, Options, OrderedConsumer, READ_HEARTBEAT, Start};
use super::super::error::{StoreError, unavailable};
use super::super::stream::{Stored, Stream};
use super::info::{ObjectInfo, chunk_subject, fetch, parse};
use super::source::Source;
use super::upload::{Sent, digest_text};
use super::window::{Chunks, PREFIX_DIGEST, delete};
use async_nats::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Names an upload that may go on later, in another process or on another day: one line of text, of `[A-Za-z0-9._-]`.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_object_store(nats_service::async_nats::jetstream::object_store::Config { bucket: "files".into(), ..Default::default() }).await?;
/// # use tokio::io::AsyncReadExt as _;
/// let files = nats_service::ObjectStore::<()>::bind(js, "files")?;
/// let bytes = vec![7; 1_000_000];
/// let upload = files.object("a file")?.upload().resumable();
/// let kept = upload.token().to_string(); // in a file, say
/// # struct Broken;
/// # impl tokio::io::AsyncRead for Broken {
/// #     fn poll_read(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>, _: &mut tokio::io::ReadBuf<'_>) -> std::task::Poll<std::io::Result<()>> {
/// #         std::task::Poll::Ready(Err(std::io::Error::other("gone")))
/// #     }
/// # }
/// # let broken = (&bytes[..600_000]).chain(Broken);
/// assert!(upload.read_from(broken).await.is_err()); // or the process was killed
///
/// let upload = files.resume(&kept.parse()?)?;
/// let info = upload.read_from(&bytes[..]).await?; // from the start: only what is missing is sent
/// assert_eq!(info.size, 1_000_000);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UploadToken {
    pub(super) bucket: String,
    pub(super) name: String,
    pub(super) nuid: String,
    pub(super) chunk_size: usize,
}

/// The text is no [`UploadToken`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no token of an upload: keep what `Upload::token` gives as it is")]
#[non_exhaustive]
pub struct UploadTokenError;

impl UploadToken {
    /// The bucket that the upload goes to.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The object that it makes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for UploadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = URL_SAFE_NO_PAD.encode(&self.name);
        let Self {
            bucket,
            nuid,
            chunk_size,
            ..
        } = self;
        write!(f, "{bucket}.{nuid}.{chunk_size}.{name}")
    }
}

impl FromStr for UploadToken {
    type Err = UploadTokenError;

    fn from_str(text: &str) -> Result<Self, UploadTokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [bucket, nuid, chunk_size, name] = parts[..] else {
            return Err(UploadTokenError);
        };
        let name = URL_SAFE_NO_PAD.decode(name).map_err(|_| UploadTokenError)?;
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plain(nuid) {
            return Err(UploadTokenError);
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            nuid: nuid.to_owned(),
            chunk_size: chunk_size.parse().map_err(|_| UploadTokenError)?,
            name: String::from_utf8(name).map_err(|_| UploadTokenError)?,
        })
    }
}

impl TryFrom<String> for UploadToken {
    type Error = UploadTokenError;

    fn try_from(text: String) -> Result<Self, UploadTokenError> {
        text.parse()
    }
}

impl From<UploadToken> for String {
    fn from(token: UploadToken) -> Self {
        token.to_string()
    }
}

/// The object that holds these chunks, if the upload had come to its end: under its name, or renamed since.
pub(super) async fn finished(
    stream: &Stream,
    name: &str,
    nuid: &str,
) -> Result<Option<ObjectInfo>, StoreError> {
    let holds = |info: &ObjectInfo| !info.deleted && info.nuid == nuid;
    if let Some(info) = fetch(stream, name).await?.filter(holds) {
        return Ok(Some(info));
    }
    let mut all = all_metadata(stream).await?;
    while let Some(info) = all.next().await? {
        if holds(&info) {
            return Ok(Some(info));
        }
    }
    Ok(None)
}

/// Everything that the bucket has metadata of, deleted or not; what cannot be read is passed over.
pub(super) struct AllMetadata(OrderedConsumer);

pub(super) async fn all_metadata(stream: &Stream) -> Result<AllMetadata, StoreError> {
    let options = Options {
        filters: vec![format!("$O.{}.M.>", stream.bucket())],
        start: Start::Last,
        headers_only: false,
        heartbeat: READ_HEARTBEAT,
    };
    let consumer = OrderedConsumer::open(stream.clone(), options).await?;
    Ok(AllMetadata(consumer))
}

impl AllMetadata {
    pub(super) async fn next(&mut self) -> Result<Option<ObjectInfo>, StoreError> {
        loop {
            match self.0.next().await.transpose()? {
                None | Some(Delivery::CaughtUp) => return Ok(None),
                Some(Delivery::Message(stored, _)) => {
                    if let Ok(info) = parse(&stored) {
                        return Ok(Some(info));
                    }
                }
            }
        }
    }
}

/// The chunks of an object without their bytes, in the order of the stream.
pub(super) struct Stubs(OrderedConsumer);

/// One of them.
pub(super) struct Stub {
    pub(super) stored: Stored,
}

impl Stub {
    pub(super) fn size(&self) -> u64 {
        self.header("Nats-Msg-Size")
            .and_then(|size| size.parse().ok())
            .unwrap_or(0)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.stored.headers.get(name).map(HeaderValue::as_str)
    }
}

pub(super) async fn stubs(stream: &Stream, nuid: &str, start: Start) -> Result<Stubs, StoreError> {
    let options = Options {
        filters: vec![chunk_subject(stream.bucket(), nuid)],
        start,
        headers_only: true,
        heartbeat: READ_HEARTBEAT,
    };
    let consumer = OrderedConsumer::open(stream.clone(), options).await?;
    Ok(Stubs(consumer))
}

impl Stubs {
    pub(super) async fn next(&mut self) -> Result<Option<Stub>, StoreError> {
        match self.0.next().await.transpose()? {
            None | Some(Delivery::CaughtUp) => Ok(None),
            Some(Delivery::Message(stored, _)) => Ok(Some(Stub { stored })),
        }
    }
}

/// Reads the source for as long as it is what is stored already, and removes what is not; the first chunk that was read and is
/// still to be sent.
pub(super) async fn match_stored(
    chunks: &mut Chunks,
    source: &mut impl Source,
    chunk_size: usize,
    sent: &mut Sent,
) -> Result<Option<Bytes>, StoreError> {
    let mut stubs = stubs(&chunks.stream, &chunks.nuid, Start::All).await?;
    while let Some(stub) = stubs.next().await? {
        let chunk = source.next(chunk_size).await.map_err(StoreError::Source)?;
        let mut digest = sent.digest.clone();
        digest.update(&chunk);
        let fits = stub.size() == chunk.len() as u64
            && stub.header(PREFIX_DIGEST) == Some(digest_text(digest).as_str());
        if fits {
            sent.add(&chunk);
            chunks.adopt(stub.stored.sequence, chunk.len() as u64);
            continue;
        }
        let mut wrong = vec![stub.stored.sequence];
        while let Some(stub) = stubs.next().await? {
            wrong.push(stub.stored.sequence);
        }
        for sequence in wrong {
            if let Err(refusal) = delete(&chunks.stream, sequence).await {
                return Err(chunks.stream.explain(refusal).await);
            }
        }
        return Ok(Some(chunk).filter(|chunk| !chunk.is_empty()));
    }
    Ok(None)
}

/// Makes sure that there are as many chunks as were meant to be: one that was thought lost may have come after all.
pub(super) async fn count(chunks: &Chunks, expected: u64) -> Result<(), StoreError> {
    let subject = chunk_subject(chunks.stream.bucket(), &chunks.nuid);
    let (there, _) = chunks.stream.subjects(&subject).await?;
    let there = there.values().sum::<u64>();
    if there == expected {
        return Ok(());
    }
    Err(unavailable(format!(
        "{there} chunks are there and {expected} were sent"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_line_of_text_and_nothing_else_is_one() {
        let token = UploadToken {
            bucket: "a_b-c".to_owned(),
            name: "ünï/ .txt\n".to_owned(),
            nuid: "AbC123".to_owned(),
            chunk_size: 131_072,
        };
        let text = token.to_string();
        assert!(
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        );
        assert_eq!(format!("{text}\n").parse(), Ok(token.clone()));
        let json = serde_json::to_string(&token).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<UploadToken>(&json).unwrap(), token);
        for text in [
            "",
            "a.b.c.d",
            "a.*.1.YQ",
            "a..1.YQ",
            "a.b.1.YQ.c",
            "a.b.1.ü",
        ] {
            assert_eq!(text.parse::<UploadToken>(), Err(UploadTokenError), "{text}");
        }
    }
}
