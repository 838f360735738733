//! What is known of one call besides its body: who asks for what, until when, with which headers; and what its answer is to
//! carry besides its body.
//!
//! Made only for endpoints that ask for it. It leaves out the reply subject: answering is the framework's business.

use super::header::{self, HeaderError};
use super::moment::bounded;
use super::spec::{MethodSpec, ServiceSpec};
use async_nats::HeaderMap;
use serde::Deserialize;
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The call that a handler is serving: an argument of a trait's method that is marked with `#[context]`.
///
/// It is no part of the body, and the generated client's method does not have it. A clone is the same call, so it may go
/// into a task that works for it.
///
/// ```
/// # use nats_service_testkit::TestServer;
/// use nats_service::{Context, Error, Server, async_nats, nats_service};
///
/// #[nats_service]
/// trait Orders {
///     async fn place(&self, #[context] ctx: &Context, article: String) -> Result<String, Error>;
/// }
///
/// struct Shop;
///
/// impl Orders for Shop {
///     async fn place(&self, ctx: &Context, article: String) -> Result<String, Error> {
///         let tenant = ctx.header("X-Tenant").ok_or_else(|| Error::unauthenticated("no X-Tenant"))?;
///         ctx.set_header("X-Queue", "7").map_err(|e| Error::internal(e.to_string()))?;
///         Ok(format!("{article} for {tenant}"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = TestServer::start().await?;
/// let nats = async_nats::connect(server.url()).await?;
/// let running = Server::new(nats.clone()).serve(OrdersServer::new(Shop)).start().await?;
///
/// let orders = OrdersClient::new(nats).with_header("X-Tenant", "acme")?;
/// let reply = orders.place("tea".to_string()).reply().await?;
/// assert_eq!(reply.value, "tea for acme");
/// assert_eq!(reply.headers.get("X-Queue").map(|value| value.as_str()), Some("7"));
/// # running.shutdown(std::time::Duration::from_secs(10)).await?; Ok(()) }
/// ```
#[derive(Clone)]
pub struct Context(Arc<Shared>);

struct Shared {
    origin: Origin,
    headers: HeaderMap,
    received: Instant,
    deadline: Instant,
    reply_headers: Mutex<Option<Box<HeaderMap>>>,
    extensions: Extensions,
    /// Those of the layers around the call.
    given: Option<Arc<Extensions>>,
    ended: AtomicBool,
    /// Made when somebody asks for it.
    token: OnceLock<CancellationToken>,
}

/// Where a call has come in.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) service: &'static ServiceSpec,
    pub(crate) method: &'static MethodSpec,
    /// Where the endpoint is, whatever the contract says.
    pub(crate) subject: Arc<str>,
    /// The id in discovery.
    pub(crate) instance: Arc<str>,
}

impl Shared {
    fn extensions(&self) -> &Extensions {
        self.given.as_deref().unwrap_or(&self.extensions)
    }
}

impl Context {
    pub(crate) fn new(
        origin: Origin,
        headers: HeaderMap,
        received: Instant,
        deadline: Instant,
        given: Option<Arc<Extensions>>,
    ) -> Self {
        Self(Arc::new(Shared {
            origin,
            headers,
            received,
            deadline,
            reply_headers: Mutex::default(),
            extensions: Extensions::default(),
            given,
            ended: AtomicBool::new(false),
            token: OnceLock::new(),
        }))
    }

    /// A context without a call, for tests that call a handler themselves: these headers, and so much time.
    ///
    /// ```
    /// # use nats_service::{Context, async_nats::HeaderMap};
    /// # use std::time::Duration;
    /// let mut headers = HeaderMap::new();
    /// headers.insert("X-Tenant", "acme");
    /// let ctx = Context::detached(headers, Duration::from_secs(1));
    /// assert_eq!(ctx.header("X-Tenant"), Some("acme"));
    /// ```
    #[must_use]
    pub fn detached(headers: HeaderMap, time: Duration) -> Self {
        let now = Instant::now();
        let origin = Origin {
            service: &ServiceSpec::NONE,
            method: &MethodSpec::NONE,
            subject: "".into(),
            instance: "".into(),
        };
        Self::new(origin, headers, now, now + bounded(time), None)
    }

    /// The request's headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The first value of this header of the request. NATS tells upper from lower case in names.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let name: async_nats::HeaderName = name.parse().ok()?;
        self.0.headers.get(name).map(|value| value.as_str())
    }

    /// Sets a header of the reply, whether that will be an answer or an error. A second value replaces the first.
    ///
    /// ```
    /// # use nats_service::{Context, HeaderError, async_nats::HeaderMap};
    /// # let ctx = Context::detached(HeaderMap::new(), std::time::Duration::from_secs(1));
    /// ctx.set_header("X-Cost", "12")?;
    /// assert!(matches!(ctx.set_header("Nats-Service-Error", "no"), Err(HeaderError::Reserved { .. })));
    /// assert!(matches!(ctx.set_header("X-Note", "two\r\nlines"), Err(HeaderError::Value { .. })));
    /// # Ok::<(), HeaderError>(())
    /// ```
    ///
    /// # Errors
    /// When the name or the value cannot stand in a header, or the name is one that the framework writes.
    pub fn set_header(&self, name: &str, value: &str) -> Result<(), HeaderError> {
        let (name, value) = header::checked(name, value)?;
        // No code that can panic runs under the lock.
        let mut headers = self
            .0
            .reply_headers
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        headers.get_or_insert_default().insert(name, value);
        Ok(())
    }

    /// When the call's time is up: the endpoint's time-out, or the caller's own where that ends sooner. The handler is
    /// dropped then, and the caller is answered with `DeadlineExceeded`.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// How much time is left; zero when it is up.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.0.deadline.saturating_duration_since(Instant::now())
    }

    /// When the service took the request.
    #[must_use]
    pub fn received(&self) -> Instant {
        self.0.received
    }

    /// Whether nobody waits for this call any more: its handler has ended or was dropped, or its time is up. For code that
    /// blocks and looks now and then.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst) || Instant::now() >= self.0.deadline
    }

    /// Waits until the call is over: its handler has returned, or was dropped because its time was up or the server
    /// stopped. For tasks that the handler has spawned; the handler itself needs nothing of it.
    ///
    /// ```
    /// # use nats_service::Context;
    /// fn look_it_up_beside(ctx: &Context) {
    ///     let ctx = ctx.clone();
    ///     tokio::spawn(async move {
    ///         tokio::select! {
    ///             () = ctx.cancelled() => {} // nobody wants it any more
    ///             () = look_it_up() => {}
    ///         }
    ///     });
    /// }
    /// # async fn look_it_up() {}
    /// ```
    pub async fn cancelled(&self) {
        self.token().cancelled().await;
    }

    fn token(&self) -> &CancellationToken {
        let token = self.0.token.get_or_init(CancellationToken::new);
        // Whoever ends the call sets the flag first and looks for a token then: one of the two sees the other.
        if self.0.ended.load(Ordering::SeqCst) {
            token.cancel();
        }
        token
    }

    /// The call is over.
    pub(crate) fn end(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
        if let Some(token) = self.0.token.get() {
            token.cancel();
        }
    }

    /// The subject that the request came on.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.origin.subject
    }

    /// The service's name in discovery.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.0.origin.service.name
    }

    /// The endpoint's name in discovery.
    #[must_use]
    pub fn endpoint(&self) -> &'static str {
        self.0.origin.method.name
    }

    /// The id of this instance of the service in discovery.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.0.origin.instance
    }

    /// Who asks, where the server tells: on a request that came from another account through a service import, and only
    /// there. Inside one account NATS tells nobody who published.
    ///
    /// The server writes it into a header and replaces what the caller had put there. A caller in the service's *own* account
    /// can send any header, this one too: rely on it only where nobody else of that account may publish to the endpoint.
    #[must_use]
    pub fn caller(&self) -> Option<Caller> {
        let told = self.0.headers.get(header::REQUEST_INFO)?;
        serde_json::from_str(told.as_str()).ok()
    }

    /// Keeps a value with the call, for whoever looks at it later: what a layer has found out about the caller, say. The
    /// latest of a type counts; earlier ones stay until the call is over, so what changes often goes behind a lock.
    ///
    /// ```
    /// # use nats_service::{Context, async_nats::HeaderMap};
    /// # let ctx = Context::detached(HeaderMap::new(), std::time::Duration::from_secs(1));
    /// struct User(String);
    /// ctx.insert(User("ada".into()));
    /// assert_eq!(ctx.get::<User>().map(|user| user.0.as_str()), Some("ada"));
    /// assert!(ctx.get::<u32>().is_none());
    /// ```
    pub fn insert<T: Any + Send + Sync>(&self, value: T) {
        self.0.extensions().insert(Box::new(value));
    }

    /// The value of this type that is kept with the call.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.extensions().get()
    }

    /// The reply's headers, for the one who sends it.
    pub(crate) fn take_reply_headers(&self) -> Option<Box<HeaderMap>> {
        self.0
            .reply_headers
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Header values may be secrets.
        f.debug_struct("Context")
            .field("subject", &self.subject())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

/// Who has sent a request, as the server says it of requests from other accounts.
///
/// The account is always there; the rest only where the service's export shares it (`share: true` on the import).
///
/// ```
/// # use nats_service::Context;
/// fn log(ctx: &Context) {
///     if let Some(caller) = ctx.caller() {
///         println!("{} of account {}", caller.user.as_deref().unwrap_or("somebody"), caller.account);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Caller {
    /// The account.
    #[serde(rename = "acc")]
    pub account: String,
    /// The user, as it has authenticated.
    pub user: Option<String>,
    /// The name that the client has given its connection.
    pub name: Option<String>,
    /// Its address.
    pub host: Option<String>,
}

/// Values by their types: a list that only grows, so that what was given out stays.
#[derive(Default)]
pub(crate) struct Extensions(OnceLock<Box<Node>>);

struct Node {
    value: Box<dyn Any + Send + Sync>,
    next: Extensions,
}

impl Drop for Extensions {
    /// One after another: each inside the one before it, a long list would take more stack than there is.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut node) = next {
            next = node.next.0.take();
        }
    }
}

impl Extensions {
    pub(crate) fn insert(&self, value: Box<dyn Any + Send + Sync>) {
        let next = Extensions::default();
        let mut node = Box::new(Node { value, next });
        let mut end = self;
        while let Err(back) = end.0.set(node) {
            node = back;
            // It was set, or there had been no error.
            let Some(taken) = end.0.get() else { return };
            end = &taken.next;
        }
    }

    pub(crate) fn get<T: Any>(&self) -> Option<&T> {
        let mut found = None;
        let mut list = self;
        while let Some(node) = list.0.get() {
            found = node.value.downcast_ref().or(found);
            list = &node.next;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context::detached(HeaderMap::new(), Duration::from_secs(60))
    }

    #[test]
    fn the_latest_value_of_a_type_counts_and_an_earlier_one_stays_borrowed() {
        let ctx = context();
        ctx.insert(1_u8);
        let first = ctx.get::<u8>();
        ctx.insert("text");
        ctx.insert(2_u8);
        assert_eq!((first, ctx.get::<u8>()), (Some(&1), Some(&2)));
        assert_eq!(ctx.get::<&str>(), Some(&"text"));
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_of_a_call_is_told_before_and_after_it() {
        let ctx = context();
        assert!(!ctx.is_cancelled());
        let waiting = tokio::spawn({
            let ctx = ctx.clone();
            async move { ctx.cancelled().await }
        });
        tokio::task::yield_now().await;
        ctx.end();
        waiting.await.unwrap();
        ctx.cancelled().await;
        assert!(ctx.is_cancelled());
        // One that asks for the first time when all is over.
        let late = context();
        late.end();
        late.cancelled().await;
    }

    #[test]
    fn a_call_that_keeps_very_many_values_ends_like_any_other() {
        let ends = || {
            let ctx = context();
            for number in 0..3_000_u32 {
                ctx.insert(number);
            }
            assert_eq!(ctx.get::<u32>(), Some(&2_999));
        };
        let small = std::thread::Builder::new().stack_size(128 << 10);
        small.spawn(ends).unwrap().join().unwrap();
    }

    #[test]
    fn a_call_may_have_all_the_time_there_is() {
        let ctx = Context::detached(HeaderMap::new(), Duration::MAX);
        assert!(ctx.remaining() > Duration::from_secs(1_000_000) && !ctx.is_cancelled());
    }

    #[test]
    fn the_server_s_account_of_a_caller_is_read_and_anything_else_is_nobody() {
        let mut headers = HeaderMap::new();
        headers.insert(header::REQUEST_INFO, r#"{"acc":"A","rtt":12,"user":"u"}"#);
        let caller = Context::detached(headers.clone(), Duration::ZERO).caller();
        let caller = caller.unwrap();
        assert_eq!(
            (caller.account.as_str(), caller.user.as_deref()),
            ("A", Some("u"))
        );
        headers.insert(header::REQUEST_INFO, "garbage");
        assert_eq!(Context::detached(headers, Duration::ZERO).caller(), None);
        assert_eq!(context().caller(), None);
    }
}
