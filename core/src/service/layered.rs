//! An endpoint with layers around it: a request passes through them to the handler, its answer comes back through them, and
//! is only then replied and stored.
//!
//! What is inside is the plain endpoint, which finds out by a task-local that it has layers around it: what is compiled once a
//! method knows nothing of them.

use super::finish::{Answer, Content, Context, Failed, Outcome, Verdict};
use super::invoke::{Endpoint, Serving};
use crate::layer::{Layers, Next, Request, Response, Stack, Wants, refusal};
use crate::wire::context::Extensions;
use crate::wire::error::Error;
use crate::wire::spec::StreamMode;
use async_nats::{HeaderMap, Message, Subject};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

tokio::task_local! {
    /// Set while the endpoint inside the layers is polled.
    static INSIDE: Arc<Inside>;
}

/// What the endpoint inside has from the layers, and gives to them.
#[derive(Default)]
struct Inside {
    extensions: Arc<Extensions>,
    outcome: Mutex<Option<Outcome>>,
}

impl Inside {
    fn of(request: &Request) -> Arc<Self> {
        Arc::new(Self {
            extensions: Arc::clone(&request.extensions),
            outcome: Mutex::default(),
        })
    }

    fn outcome(&self) -> MutexGuard<'_, Option<Outcome>> {
        // It is written whole.
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What layers have kept with the call that is being served.
pub(crate) fn extensions() -> Option<Arc<Extensions>> {
    INSIDE
        .try_with(|inside| Arc::clone(&inside.extensions))
        .ok()
}

/// Hands the outcome to the layers around it; gives it back when there are none, or this is what they have made of it.
pub(crate) fn hand_over(outcome: Outcome) -> Option<Outcome> {
    let mut outcome = Some(outcome);
    let _ = INSIDE.try_with(|inside| *inside.outcome() = outcome.take());
    outcome
}

/// Puts the layers around it, if there are any.
pub(crate) fn around(layers: &Layers, endpoint: Arc<dyn Endpoint>) -> Arc<dyn Endpoint> {
    if layers.is_empty() {
        return endpoint;
    }
    let inside = Arc::clone(&endpoint);
    let end = Next::end(move |request| {
        let endpoint = Arc::clone(&inside);
        Box::pin(async move {
            Ok(match request.wants {
                Wants::Leave => Response::leave(request),
                _ => serve(endpoint, request).await,
            })
        })
    });
    Arc::new(Layered {
        endpoint,
        stack: layers.around(end),
    })
}

/// Begins the stream that the layers have let in; they are not around it any more.
async fn open(endpoint: &Arc<dyn Endpoint>, request: Request, reply: Option<Subject>) -> Verdict {
    let inside = Inside::of(&request);
    let mut slot = begin(endpoint, request, reply);
    INSIDE.scope(inside, poll_fn(|cx| slot.poll(cx))).await
}

fn begin(endpoint: &Arc<dyn Endpoint>, request: Request, reply: Option<Subject>) -> Serving {
    let message = Message {
        subject: request.at,
        reply,
        length: request.body.len(),
        payload: request.body,
        headers: (!request.headers.is_empty()).then_some(request.headers),
        status: None,
        description: None,
    };
    let mut slot = ReusableBoxFuture::new(std::future::ready(None));
    let (received, deadline) = (request.received, request.deadline);
    Arc::clone(endpoint).begin(message, received, deadline, &mut slot);
    slot
}

/// The endpoint, as the service inside all layers.
async fn serve(endpoint: Arc<dyn Endpoint>, request: Request) -> Response {
    let inside = Inside::of(&request);
    let mut slot = begin(&endpoint, request, None);
    let served = INSIDE.scope(Arc::clone(&inside), poll_fn(|cx| slot.poll(cx)));
    let verdict = served.await;
    let outcome = inside.outcome().take();
    match outcome {
        Some(outcome) => response(outcome),
        // A method whose requests end in no outcome has none that layers could see.
        None => Response::from(verdict.map_or_else(lost, |error| *error)),
    }
}

fn lost() -> Error {
    Error::internal("the endpoint gave no outcome")
}

struct Layered {
    endpoint: Arc<dyn Endpoint>,
    stack: Stack,
}

impl Endpoint for Layered {
    fn context(&self) -> &Context {
        self.endpoint.context()
    }

    fn begin(
        self: Arc<Self>,
        message: Message,
        received: Instant,
        deadline: Instant,
        slot: &mut Serving,
    ) {
        slot.set(async move {
            let context = self.endpoint.context();
            let request = Request {
                headers: message.headers.unwrap_or_default(),
                body: message.payload,
                method: context.spec,
                at: message.subject,
                received,
                deadline,
                extensions: Arc::default(),
                wants: match context.spec.stream {
                    StreamMode::None => Wants::Answer,
                    _ => Wants::Leave,
                },
            };
            let wants = request.wants;
            let answered = self.stack.call(request).await;
            let outcome = match answered {
                Ok(response) if matches!(wants, Wants::Leave) => match response.left() {
                    Ok(request) => return open(&self.endpoint, request, message.reply).await,
                    Err(error) => Err(error),
                },
                Ok(response) => outcome(context, response),
                Err(error) => Err(refusal(context.spec.subject, error)),
            };
            context.finish(message.reply, deadline, outcome).await
        });
    }
}

/// What layers see of an outcome; what they do not see goes along.
fn response(outcome: Outcome) -> Response {
    let mut answer = match outcome {
        Ok(Ok(answer)) => answer,
        Ok(Err(Failed { error, headers })) => {
            return Response::of(
                headers.map(|headers| *headers).unwrap_or_default(),
                Err(error),
            );
        }
        Err(refusal) => return Response::from(refusal.refused()),
    };
    let headers = answer.headers.take().map(|headers| *headers);
    let body = match &answer.content {
        Content::Bytes(body, _) => body.clone(),
        Content::Stream(_) => Default::default(),
    };
    let mut response = Response::of(headers.unwrap_or_default(), Ok(body));
    response.rest = Some(Box::new(answer));
    response
}

/// What the layers have made of it.
fn outcome(context: &Context, mut response: Response) -> Outcome {
    let headers = std::mem::take(&mut response.headers);
    let headers = (!headers.is_empty()).then(|| Box::<HeaderMap>::new(headers));
    let rest = response.rest.take();
    let body = match response.into_answer() {
        Ok(body) => body,
        Err(error) if error.refused => return Err(error),
        Err(error) => return Ok(Err(Failed { error, headers })),
    };
    let Some(Ok(mut answer)) = rest.map(|rest| rest.downcast::<Answer>()) else {
        // A layer's own answer, which no store is promised.
        let content = Content::Bytes(body, None);
        return Ok(Ok(Answer::new(
            content,
            context.spec.codec,
            headers,
            None,
            Vec::new(),
        )));
    };
    answer.headers = headers;
    match &answer.content {
        // As it was, and so is what is kept of it.
        Content::Bytes(before, _) if *before == body => {}
        Content::Stream(_) if body.is_empty() => {}
        _ => answer.content = Content::Bytes(body, None),
    }
    Ok(Ok(*answer))
}
