//! Who calls, by a token in a header. What the layer finds out is kept with the call, and the handler takes it from its context.

use nats_service::Error;
use nats_service::layer::{BoxError, Next, Request, Response};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// The caller, for `ctx.get::<User>()`.
#[derive(Debug, Clone)]
pub struct User(pub String);

/// The layer.
#[derive(Clone)]
pub struct Authenticate {
    users: Arc<HashMap<String, String>>,
}

impl Authenticate {
    /// With these tokens, each with whose it is. Yours come from where you keep them.
    pub fn with<const N: usize>(users: [(&str, &str); N]) -> Self {
        let users = users.map(|(token, user)| (token.to_owned(), user.to_owned()));
        Self {
            users: Arc::new(users.into()),
        }
    }

    fn user(&self, request: &Request) -> Option<User> {
        let token = request.header("Authorization")?.strip_prefix("Bearer ")?;
        self.users.get(token).cloned().map(User)
    }
}

impl Layer<Next> for Authenticate {
    type Service = Authenticated;

    fn layer(&self, next: Next) -> Authenticated {
        Authenticated {
            rule: self.clone(),
            next,
        }
    }
}

/// The layer's service.
#[derive(Clone)]
pub struct Authenticated {
    rule: Authenticate,
    next: Next,
}

impl Service<Request> for Authenticated {
    type Response = Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.next.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(user) = self.rule.user(&request) else {
            // An `Error` is what the caller is told; any other error would be logged, and told as `Internal`.
            let refusal =
                Error::unauthenticated(format!("{}: no token that is known", request.subject()));
            return Box::pin(async { Err(refusal.into()) });
        };
        request.insert(user);
        self.next.call(request)
    }
}
