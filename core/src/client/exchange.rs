//! What is sent for a call and what comes back, as bytes: the same for every method, and compiled once.

use super::ClientCore;
use super::error::CallError;
use super::retry::{self, Retry};
use crate::store::{self, ObjectReader, StoreError};
use crate::wire::codec::{Codec, CodecError};
use crate::wire::error::{Code, Error};
use crate::wire::header;
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use std::time::Duration;

/// Whatever keeps a call from its answer. `Service` is an error reply that nobody has looked at yet.
pub(super) type Failure = CallError<Error>;

/// An answer that is not decoded yet.
pub(super) struct Received {
    pub(super) codec: Codec,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    pub(super) attempts: u32,
}

pub(super) enum Content {
    Bytes(Bytes),
    Stream(ByteStream),
}

/// What is to be sent, and how long its answer may take.
pub(super) struct Exchange {
    pub(super) core: ClientCore,
    pub(super) spec: &'static MethodSpec,
    pub(super) body: Result<Bytes, CodecError>,
    pub(super) timeout: Duration,
    /// `None` when it is sent once.
    pub(super) retry: Option<Retry>,
    /// The answer is to be read as it comes.
    pub(super) streams: bool,
}

impl Exchange {
    pub(super) async fn run(self) -> Result<Received, Failure> {
        match self.retry {
            None => self.attempt(self.timeout).await,
            // Boxed, so that a call that is sent once has no room for this in it.
            Some(policy) => Box::pin(retry::run(self, policy)).await,
        }
    }

    /// Sends it once.
    pub(super) async fn attempt(&self, limit: Duration) -> Result<Received, Failure> {
        match tokio::time::timeout(limit, self.send()).await {
            Ok(received) => received,
            Err(_) => Err(CallError::Timeout {
                subject: self.spec.subject,
                after: limit,
            }),
        }
    }

    async fn send(&self) -> Result<Received, Failure> {
        let Self {
            core,
            spec,
            body,
            streams,
            ..
        } = self;
        let body = body.clone().map_err(CallError::Encode)?;
        let message = request(core, spec, body).await?;
        let codec = match content_type(&message) {
            Some(said) => Codec::from_content_type(said).unwrap_or(spec.codec),
            None => spec.codec,
        };
        let headers = message.headers.unwrap_or_default();
        if let Some(error) = error_reply(&headers, &message.payload) {
            return Err(CallError::Service(error));
        }
        let content = match headers.get(header::OBJECT) {
            None if *streams => {
                Content::Stream(ByteStream::new(std::io::Cursor::new(message.payload)))
            }
            None => Content::Bytes(message.payload),
            Some(reference) => fetch(core, reference.as_str(), &headers, *streams)
                .await
                .map_err(CallError::Object)?,
        };
        Ok(Received {
            codec,
            headers,
            content,
            attempts: 1,
        })
    }
}

/// Fetches an answer that did not fit a message, or opens it.
async fn fetch(
    core: &ClientCore,
    reference: &str,
    headers: &HeaderMap,
    streams: bool,
) -> Result<Content, StoreError> {
    let reader = follow(core, reference, headers).await?;
    Ok(match streams {
        true => Content::Stream(ByteStream::new(reader)),
        false => Content::Bytes(reader.into_bytes().await?),
    })
}

async fn request(core: &ClientCore, spec: &MethodSpec, body: Bytes) -> Result<Message, Failure> {
    let client = &core.mux.client;
    let subject = spec.subject;
    // The server ends the connection of a client that sends more than it takes.
    let (size, max) = (body.len() + header_bytes(spec.codec), client.max_payload());
    if size > max {
        return Err(CallError::TooLarge { subject, size, max });
    }
    let mut pending = core.mux.register().await.map_err(connection)?;
    let reply = Subject::from(std::mem::take(&mut pending.subject));
    let sent = match spec.codec {
        Codec::Json => client.publish_with_reply(subject, reply, body).await,
        #[cfg(feature = "msgpack")]
        codec => {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, codec.content_type());
            client
                .publish_with_reply_and_headers(subject, reply, headers, body)
                .await
        }
    };
    sent.map_err(connection)?;
    let message = pending
        .reply()
        .await
        .ok_or_else(|| connection("it was closed while the call waited"))?;
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(CallError::NoResponders { subject });
    }
    Ok(message)
}

/// What the headers of a request add to its body: the server counts both.
fn header_bytes(codec: Codec) -> usize {
    match codec {
        Codec::Json => 0,
        #[cfg(feature = "msgpack")]
        codec => {
            let fixed = "NATS/1.0\r\n: \r\n\r\n".len();
            fixed + header::CONTENT_TYPE.len() + codec.content_type().len()
        }
    }
}

fn connection(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    CallError::Connection(source.into())
}

fn content_type(message: &Message) -> Option<&str> {
    let headers = message.headers.as_ref()?;
    headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.as_str())
}

/// The error that a reply is, if it is one. ADR-32: either header makes it one, and a body may say more.
fn error_reply(headers: &HeaderMap, body: &[u8]) -> Option<Error> {
    let text = headers.get(header::SERVICE_ERROR);
    let number = headers.get(header::SERVICE_ERROR_CODE);
    if text.is_none() && number.is_none() {
        return None;
    }
    if let Ok(error) = serde_json::from_slice::<Error>(body) {
        return Some(error);
    }
    // A service that is not ours, or whose body was too large.
    let code = number
        .and_then(|number| number.as_str().parse().ok())
        .map_or(Code::Unknown, Code::from_number);
    let text = text.map_or("the service answered with an error and no text", |text| {
        text.as_str()
    });
    Some(Error::new(code, text))
}

/// Opens the object of an answer that did not fit a message.
async fn follow(
    core: &ClientCore,
    reference: &str,
    headers: &HeaderMap,
) -> Result<ObjectReader, StoreError> {
    let jetstream = match &core.jetstream {
        Some(jetstream) => jetstream.clone(),
        // The caller shall notice nothing of the detour, so it need not have thought of JetStream.
        None => async_nats::jetstream::new(core.mux.client.clone()),
    };
    let (bucket, name) = reference.split_once('/').unwrap_or((reference, ""));
    let digest = headers
        .get(header::OBJECT_DIGEST)
        .map_or("", |digest| digest.as_str());
    store::object::open(&jetstream, bucket, name, digest).await
}
