//! A call with an `Idempotency-Key` happens once: its first answer is kept in a KV bucket, and given again to whoever repeats it.
//!
//! Before the handler is called, the key is taken by a `create`, which only one of several instances can succeed with. A
//! repeat that comes while the first is running is told to come later. What fails gives its key back. A call that ends between
//! the two, by a time-out or with its process, leaves its key taken, since nobody knows how far it had come: repeats are
//! `Aborted` until the bucket forgets it.

use crate::authenticate::User;
use nats_service::layer::{BoxError, Next, Request, Response};
use nats_service::{Code, Error, KvKey, KvStore, StoreError, check_key, message};
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// The layer; inside of the one that knows who calls.
#[derive(Clone)]
pub struct Idempotency {
    answers: KvStore<Kept>,
}

/// What is kept under a key.
#[message]
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The request, so that a key is not used for two.
    request: String,
    /// `None` while it runs.
    answer: Option<String>,
}

impl Idempotency {
    /// With the bucket where first answers are kept. Its time to live is how long a repeat is known for one.
    pub fn new(answers: KvStore<Kept>) -> Self {
        Self { answers }
    }
}

impl Layer<Next> for Idempotency {
    type Service = Idempotent;

    fn layer(&self, next: Next) -> Idempotent {
        Idempotent {
            answers: self.answers.clone(),
            next,
        }
    }
}

/// The layer's service.
#[derive(Clone)]
pub struct Idempotent {
    answers: KvStore<Kept>,
    next: Next,
}

impl Service<Request> for Idempotent {
    type Response = Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.next.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(name) = request.header("Idempotency-Key") else {
            return self.next.call(request);
        };
        let key = self.key(&request, name);
        // The one that is ready goes into the future, and its clone waits for its own turn.
        let clone = self.next.clone();
        let next = std::mem::replace(&mut self.next, clone);
        Box::pin(async move { once(key?, request, next).await })
    }
}

impl Idempotent {
    /// A key for each user and endpoint, so that nobody is given somebody else's answer.
    fn key(&self, request: &Request, name: &str) -> Result<KvKey<Kept>, Error> {
        let user = request
            .get::<User>()
            .map_or("nobody", |user| user.0.as_str());
        let rule = |error| Error::invalid_argument(format!("Idempotency-Key: {error}"));
        if name.contains('.') {
            return Err(Error::invalid_argument(
                "Idempotency-Key: one token, without a dot",
            ));
        }
        check_key(name).map_err(rule)?;
        let key = format!("{user}.{}.{name}", request.subject());
        self.answers
            .key(key)
            .map_err(|error| Error::invalid_argument(error.to_string()))
    }
}

async fn once(key: KvKey<Kept>, request: Request, mut next: Next) -> Result<Response, BoxError> {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let taken = Kept {
        request: text,
        answer: None,
    };
    let revision = match key.create(&taken).await {
        Ok(revision) => revision,
        Err(StoreError::Conflict { .. }) => return again(&key, &taken).await,
        // Not knowing whether it is a repeat, it is not done.
        Err(error) => return Err(Error::unavailable(format!("Idempotency-Key: {error}")).into()),
    };
    let response = next.call(request).await;
    let answer = match &response {
        Ok(response) => response.answer().ok(),
        Err(_) => None,
    };
    let kept = match answer {
        Some(answer) => {
            let answer = Some(String::from_utf8_lossy(answer).into_owned());
            key.update(&Kept { answer, ..taken }, revision).await
        }
        None => key.delete_if(revision).await,
    };
    if let Err(error) = kept {
        // The caller has its answer; a repeat will be told to come later, and not be done twice.
        eprintln!("the first answer was not kept: {error}");
    }
    response
}

/// What a repeat gets.
async fn again(key: &KvKey<Kept>, taken: &Kept) -> Result<Response, BoxError> {
    let kept = key.get().await?.map(|entry| entry.into_value());
    let running = Error::new(
        Code::Aborted,
        "the first call with this Idempotency-Key has not ended; try again later",
    );
    let Some(kept) = kept else {
        return Err(running.into());
    };
    if kept.request != taken.request {
        let text = "this Idempotency-Key belongs to another request";
        return Err(Error::invalid_argument(text).into());
    }
    let Some(answer) = kept.answer else {
        return Err(running.into());
    };
    let mut response = Response::new(answer);
    response.headers.insert("Idempotent-Replay", "true");
    Ok(response)
}
