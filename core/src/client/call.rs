//! One call: what is sent, and what is made of the reply.

use super::ClientCore;
use super::error::CallError;
use crate::store::{self, ObjectReader};
use crate::wire::codec::{Codec, CodecError};
use crate::wire::error::{Code, Error, ServiceError};
use crate::wire::header;
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use async_nats::{HeaderMap, Message, StatusCode, Subject};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

/// A call that is ready to be sent: await it for its answer, or [`reply`](Call::reply) for what came with it.
///
/// ```no_run
/// # use nats_service::nats_service;
/// # #[nats_service] pub trait Greeter { async fn hello(&self, name: String) -> String; }
/// # async fn run(greeter: GreeterClient) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// let text = greeter.hello("Ada".to_string()).timeout(Duration::from_millis(200)).await?;
/// # Ok(()) }
/// ```
#[must_use = "a call does nothing until it is awaited"]
#[derive(Debug)]
pub struct Call<T, E> {
    core: ClientCore,
    spec: &'static MethodSpec,
    body: Result<Bytes, CodecError>,
    timeout: Duration,
    answer: PhantomData<fn() -> (T, E)>,
}

/// An answer, and what came with it.
///
/// ```no_run
/// # use nats_service::nats_service;
/// # #[nats_service] pub trait Greeter { async fn hello(&self, name: String) -> String; }
/// # async fn run(greeter: GreeterClient) -> Result<(), Box<dyn std::error::Error>> {
/// let reply = greeter.hello("Ada".to_string()).reply().await?;
/// println!("{} (revision {:?})", reply.value, reply.revision);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reply<T> {
    /// The answer.
    pub value: T,
    /// The revision at which the answer is stored, where the method writes before it replies.
    pub revision: Option<u64>,
    /// The reply's headers.
    pub headers: HeaderMap,
}

impl<T, E> Call<T, E> {
    pub(super) fn new(
        core: &ClientCore,
        spec: &'static MethodSpec,
        body: Result<Bytes, CodecError>,
    ) -> Self {
        Self {
            core: core.clone(),
            spec,
            body,
            timeout: core.timeout.unwrap_or(spec.timeout),
            answer: PhantomData,
        }
    }

    /// How long this call waits for its answer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl<T: DeserializeOwned + 'static, E: ServiceError> Call<T, E> {
    /// Sends the request, and waits for the answer and what came with it.
    ///
    /// # Errors
    /// The service's own error, or what kept the call from it.
    pub async fn reply(self) -> Result<Reply<T>, CallError<E>> {
        let subject = self.spec.subject;
        let after = self.timeout;
        match tokio::time::timeout(after, self.send()).await {
            Ok(reply) => reply,
            Err(_) => Err(CallError::Timeout { subject, after }),
        }
    }

    async fn send(self) -> Result<Reply<T>, CallError<E>> {
        let Self {
            core, spec, body, ..
        } = self;
        let body = body.map_err(CallError::Encode)?;
        let message = request(&core, spec, body).await?;
        let codec = match content_type(&message) {
            Some(said) => Codec::from_content_type(said).unwrap_or(spec.codec),
            None => spec.codec,
        };
        let headers = message.headers.unwrap_or_default();
        if let Some(error) = error_reply(&headers, &message.payload) {
            return Err(match E::from_wire(error) {
                Ok(error) => CallError::Service(error),
                Err(error) => CallError::Remote(error),
            });
        }
        let object = match headers.get(header::OBJECT) {
            Some(reference) => {
                let reader = follow(&core, reference.as_str(), &headers).await;
                Some(reader.map_err(CallError::Object)?)
            }
            None => None,
        };
        let value = match object {
            Some(reader) if ByteStream::is::<T>() => streamed(ByteStream::new(reader))?,
            Some(reader) => {
                let body = reader.into_bytes().await.map_err(CallError::Object)?;
                codec.decode(&body).map_err(CallError::Decode)?
            }
            None if ByteStream::is::<T>() => {
                streamed(ByteStream::new(std::io::Cursor::new(message.payload)))?
            }
            None => codec
                .decode(codec.body_or_unit(&message.payload))
                .map_err(CallError::Decode)?,
        };
        let revision = headers
            .get(header::REVISION)
            .and_then(|revision| revision.as_str().parse().ok());
        Ok(Reply {
            value,
            revision,
            headers,
        })
    }
}

async fn request<E>(
    core: &ClientCore,
    spec: &MethodSpec,
    body: Bytes,
) -> Result<Message, CallError<E>> {
    let client = &core.mux.client;
    let subject = spec.subject;
    // The server ends the connection of a client that sends more than it takes.
    let (size, max) = (body.len() + header_bytes(spec.codec), client.max_payload());
    if size > max {
        return Err(CallError::TooLarge { subject, size, max });
    }
    let mut pending = core.mux.expect().await.map_err(connection)?;
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

fn connection<E>(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CallError<E> {
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

/// The answer of a method that answers with a stream.
fn streamed<T: 'static, E>(stream: ByteStream) -> Result<T, CallError<E>> {
    let answer = stream.into_answer();
    answer.ok_or_else(|| connection("the answer is no stream"))
}

/// Opens the object of an answer that did not fit a message.
async fn follow(
    core: &ClientCore,
    reference: &str,
    headers: &HeaderMap,
) -> Result<ObjectReader, store::StoreError> {
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

impl<T, E> IntoFuture for Call<T, E>
where
    T: DeserializeOwned + 'static,
    E: ServiceError,
{
    type Output = Result<T, CallError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.reply().await?.value) })
    }
}
