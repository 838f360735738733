//! Layers around a client's calls, and the connection inside them.
//!
//! Every attempt of a call passes through them. Of a question to all instances they see the first answer.

use super::ClientCore;
use super::error::CallError;
use super::exchange::{Exchange, Failure, closed, nobody_listens};
use super::transport::Transport;
use crate::layer::{BoxError, CallLayer, Layers, Next, Request, Response, Stack, Wants, code_of};
use crate::wire::error::Code;
use crate::wire::error_reply;
use crate::wire::moment::bounded;
use crate::wire::replies::Several;
use crate::wire::spec::MethodSpec;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A client's layers: put around its connection when the first call is made, so that the first can be the outermost.
#[derive(Debug, Default)]
pub(super) struct Layered {
    layers: Layers,
    stack: OnceLock<Stack>,
}

impl Layered {
    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    pub(super) fn with(&self, layer: impl CallLayer) -> Self {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Self {
            layers,
            stack: OnceLock::new(),
        }
    }

    fn stack(&self, transport: &Arc<Transport>) -> &Stack {
        self.stack.get_or_init(|| {
            let transport = Arc::clone(transport);
            self.layers.around(Next::end(move |request| {
                let transport = Arc::clone(&transport);
                Box::pin(async move { Ok(send(&transport, request).await?) })
            }))
        })
    }
}

impl Exchange {
    /// Sends it through the layers.
    pub(super) async fn through_layers(
        &self,
        headers: Option<HeaderMap>,
        limit: Duration,
        wants: Wants,
    ) -> Result<(Message, Option<Several>), Failure> {
        let now = Instant::now();
        let request = Request {
            headers: headers.unwrap_or_default(),
            body: self.body.clone(),
            method: self.spec,
            at: self.subject(),
            received: now,
            deadline: now + bounded(limit),
            extensions: Arc::default(),
            wants,
        };
        let stack = self.core.layers.stack(&self.core.transport);
        let mut response = stack.call(request).await.map_err(failure)?;
        let several = response.rest.take();
        let several = several.and_then(|several| several.downcast::<Several>().ok());
        let headers = std::mem::take(&mut response.headers);
        let payload = response.into_answer().map_err(CallError::Service)?;
        let message = Message {
            subject: self.subject(),
            reply: None,
            length: payload.len(),
            payload,
            headers: Some(headers),
            status: None,
            description: None,
        };
        Ok((message, several.map(|several| *several)))
    }
}

impl ClientCore {
    /// Lets a request that opens a stream through the layers; they are not around the stream.
    pub(super) async fn leave_of_layers(
        &self,
        method: &'static MethodSpec,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<(HeaderMap, Bytes), Failure> {
        let now = Instant::now();
        let request = Request {
            headers,
            body,
            method,
            at: self.subject(method),
            received: now,
            deadline: now + bounded(limit),
            extensions: Arc::default(),
            wants: Wants::Leave,
        };
        let stack = self.layers.stack(&self.transport);
        let response = stack.call(request).await.map_err(failure)?;
        let request = response.left().map_err(CallError::Service)?;
        Ok((request.headers, request.body))
    }
}

/// The connection, as the service inside all layers.
async fn send(transport: &Transport, mut request: Request) -> Result<Response, Failure> {
    let subject = request.at.clone();
    if let Wants::Leave = request.wants {
        return Ok(Response::leave(request));
    }
    let headers = std::mem::take(&mut request.headers);
    let headers = (!headers.is_empty()).then_some(headers);
    transport.check(|| subject.clone(), headers.as_ref(), &request.body)?;
    let (message, several) = match request.wants {
        Wants::Answer | Wants::Leave => {
            let (mut pending, inbox) = transport.one().await?;
            transport
                .send(request.at, inbox, headers, request.body)
                .await?;
            (pending.reply().await.ok_or_else(closed)?, None)
        }
        Wants::Answers(most) => {
            let (mut several, inbox) = transport.several(most).await?;
            transport
                .send(request.at, inbox, headers, request.body)
                .await?;
            (several.next().await.ok_or_else(closed)?, Some(several))
        }
    };
    if nobody_listens(&message) {
        return Err(CallError::NoResponders { subject });
    }
    let headers = message.headers.unwrap_or_default();
    let answer = match error_reply::read(&headers, &message.payload) {
        Some(error) => Err(error),
        None => Ok(message.payload),
    };
    let mut response = Response::of(headers, answer);
    response.rest = several.map(|several| Box::new(several) as _);
    Ok(response)
}

/// What the layers have failed with: what the connection did, or something of their own.
fn failure(error: BoxError) -> Failure {
    match error.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) => CallError::Layer {
            code: code_of(&*error).unwrap_or(Code::Internal),
            source: error,
        },
    }
}
