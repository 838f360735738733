//! The calling side: a request with its deadline, its answer or its error.
//!
//! `call` is one call as its caller sees it, `exchange` its bytes, `many` one that every instance answers, `retry` when it is
//! sent again, `transport` and `mux` how it travels, `error` what may come of it. Stores are not its business: a generated
//! client only passes the JetStream context on.

mod argument;
mod call;
mod discover;
mod error;
mod exchange;
#[cfg(feature = "tower")]
mod layered;
mod many;
mod mux;
mod retry;
mod streaming;
mod transport;

pub use argument::{Argument, Body, Part};
pub use call::{Call, CallFuture, Reply};
pub use discover::{
    Discover, DiscoverError, EndpointInfo, EndpointStats, ServiceInfo, ServicePing, ServiceStats,
};
pub use error::CallError;
pub use many::{Answers, EveryInstance, InstanceAnswer, Many, OneInstance};
pub use retry::Retry;
pub use streaming::{StreamCall, Streaming, UploadCall, Uploaded};

use crate::__private::Method;
use crate::connection::ConnectionEvents;
use crate::layer::CallLayer;
use crate::store::StoreError;
use crate::streaming::{Inbox, is_inbox};
use crate::wire::codec::{Codec, CodecError};
use crate::wire::context::Context;
use crate::wire::header::{self, HeaderError};
use crate::wire::loopback::Loopback;
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use crate::wire::subject::{Prefix, PrefixError};
use async_nats::{Client, HeaderMap, Subject, jetstream};
use bytes::Bytes;
use exchange::Exchange;
use mux::Mux;
use retry::Retrying;
use std::sync::Arc;
use std::time::{Duration, Instant};
use transport::Transport;

/// What every generated client is made of.
#[derive(Debug, Clone)]
pub struct ClientCore {
    transport: Arc<Transport>,
    streams: Arc<Inbox>,
    #[cfg(feature = "tower")]
    layers: Arc<layered::Layered>,
    jetstream: Option<jetstream::Context>,
    timeout: Option<Duration>,
    retrying: Arc<Retrying>,
    /// Of every call.
    headers: Option<Arc<HeaderMap>>,
    /// Of the call on whose behalf it calls.
    deadline: Option<Instant>,
    events: Option<ConnectionEvents>,
    /// Instead of the contract's.
    codec: Option<Codec>,
    prefix: Prefix,
}

impl ClientCore {
    /// A client on this connection.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self::over(Transport::Nats(Mux::new(client)))
    }

    fn over(transport: Transport) -> Self {
        Self {
            streams: Arc::new(Inbox::new(transport.outlet(), Arc::new(is_inbox))),
            transport: Arc::new(transport),
            #[cfg(feature = "tower")]
            layers: Arc::default(),
            jetstream: None,
            timeout: None,
            retrying: Arc::new(Retrying::new(Retry::default())),
            headers: None,
            deadline: None,
            events: None,
            codec: None,
            prefix: Prefix::default(),
        }
    }

    /// A client of a service in this process.
    #[must_use]
    pub(crate) fn local(service: Loopback) -> Self {
        Self::over(Transport::Local(service))
    }

    /// Puts a layer around every call, inside of those that it has.
    #[must_use]
    pub fn layer(self, layer: impl CallLayer) -> Self {
        #[cfg(feature = "tower")]
        return Self {
            layers: Arc::new(self.layers.with(layer)),
            ..self
        };
        #[cfg(not(feature = "tower"))]
        {
            let _ = layer;
            self
        }
    }

    /// Gives it JetStream, for the stores.
    #[must_use]
    pub fn with_jetstream(mut self, jetstream: jetstream::Context) -> Self {
        self.jetstream = Some(jetstream);
        self
    }

    /// The time-out of every call, instead of what the trait says.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// When calls are repeated that may happen twice. The budget begins anew, and belongs to this client and its clones.
    #[must_use]
    pub fn with_retry(mut self, policy: Retry) -> Self {
        self.retrying = Arc::new(Retrying::new(policy));
        self
    }

    /// Sends this header with every call.
    ///
    /// # Errors
    /// When it cannot be one, or is the framework's.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, HeaderError> {
        let (name, value) = header::checked(name, value)?;
        Arc::make_mut(self.headers.get_or_insert_default()).insert(name, value);
        Ok(self)
    }

    /// Calls on behalf of the call with this context: none waits for longer than its caller does.
    #[must_use]
    pub fn with_context(&self, context: &Context) -> Self {
        Self {
            deadline: Some(context.deadline()),
            ..self.clone()
        }
    }

    /// Writes requests in this codec, and so gets its answers in it.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Calls the deployment under this prefix. A service in this process is where its client is, whatever that says.
    ///
    /// # Errors
    /// When it cannot stand in a subject.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self, PrefixError> {
        let prefix = Prefix::new(prefix)?;
        if self.transport.client().is_some() {
            self.prefix = prefix;
        }
        Ok(self)
    }

    /// Where a method is called.
    fn subject(&self, method: &MethodSpec) -> Subject {
        self.prefix.of(method)
    }

    /// Lets calls see what the server says to the connection.
    #[must_use]
    pub fn with_events(mut self, events: &ConnectionEvents) -> Self {
        self.events = Some(events.clone());
        self
    }

    /// The JetStream context.
    ///
    /// # Errors
    /// When there is none; the error says what to pass.
    pub fn jetstream(&self) -> Result<jetstream::Context, StoreError> {
        self.jetstream.clone().ok_or(StoreError::NoJetStream)
    }

    /// Prepares a call. The body is encoded at once, so that the call borrows nothing.
    pub fn call<M: Method, R>(&self, body: Body<'_>) -> Call<M::Answer, M::Error, R> {
        Call::new(Exchange::new(
            self,
            M::SPEC,
            body,
            ByteStream::is::<M::Answer>(),
        ))
    }

    fn encode(&self, method: &MethodSpec, body: Body<'_>) -> Result<Bytes, CodecError> {
        self.codec(method).encode_erased(body.0)
    }

    /// What a method's requests are written in.
    #[must_use]
    pub fn codec(&self, method: &MethodSpec) -> Codec {
        self.codec.unwrap_or(method.codec)
    }

    /// Prepares a call that is answered with a stream of `T`; `uploaded` where it sends one, too.
    pub fn stream<M: Method, F>(
        &self,
        body: Body<'_>,
        uploaded: Option<Uploaded>,
    ) -> StreamCall<M::Answer, F, M::Error> {
        StreamCall::new(self, M::SPEC, self.encode(M::SPEC, body), uploaded)
    }

    /// Prepares a call that sends a stream.
    pub fn upload<M: Method>(
        &self,
        body: Body<'_>,
        uploaded: Option<Uploaded>,
    ) -> UploadCall<M::Answer, M::Error> {
        UploadCall::new(self, M::SPEC, self.encode(M::SPEC, body), uploaded)
    }
}
