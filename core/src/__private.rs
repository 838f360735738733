//! The only module that generated code names. Nothing in it is for users, and anything in it may change.

pub use crate::client::{
    Argument, Body, Call, CallError, ClientCore, EveryInstance, OneInstance, Part, Retry,
};
pub use crate::client::{StreamCall, UploadCall, Uploaded};
pub use crate::connection::ConnectionEvents;
#[cfg(feature = "schema")]
pub use crate::contract::{
    AsyncApi, ContractBuilder, DescribeError, Described, ErrorVariant, MethodBuilder, NoMethod,
};
pub use crate::layer::{CallLayer, Layers};
pub use crate::service::{Mount, Server};
pub use crate::service::{Opening, Requests, Side};
pub use crate::store::{
    BucketSpec, Capture, CaptureForm, KeyError, KeyFilter, KeySource, KeyTemplate, KeyToken, Keys,
    KvKey, KvSelection, KvStore, ObjectKey, ObjectSelection, ObjectStore, Provision, Segment,
    Storage, StoreError,
};
pub use crate::wire::codec::Codec;
pub use crate::wire::context::Context;
pub use crate::wire::error::{Code, Error, ServiceError};
pub use crate::wire::header::HeaderError;
pub use crate::wire::spec::{
    CacheSpec, MethodSpec, ServiceSpec, SingleFlight, StoreAction, StoreKind, StoreSpec,
    StreamMode, WriteMode,
};
pub use crate::wire::subject::PrefixError;
pub use async_nats::Client;
pub use async_nats::jetstream::Context as JetStream;
pub use futures_util::Stream;
#[cfg(feature = "schema")]
pub use schemars;
pub use serde;
pub use serde_json;
pub use std;

use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use std::convert::Infallible;
use std::marker::PhantomData;

/// One method of an annotated trait: what its service, its client and its stores have in common.
pub trait Method: Send + Sync + 'static {
    /// Its constants.
    const SPEC: &'static MethodSpec;
    /// What a successful call brings.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
    /// What the handler fails with.
    type Error: ServiceError;
}

/// One method as the server sees it: how `S` answers it.
pub trait Handle<S>: Method {
    /// The body, which may borrow from the message.
    type Request<'de>: Deserialize<'de> + Send;
    /// What the handler returns, as it is written.
    type Returned;

    /// Fills the captures that come from the request, in the order of the stores and of their templates.
    fn request_keys(request: &Self::Request<'_>, keys: &mut Keys) -> Result<(), KeyError>;

    /// Leaves out the stores whose `when` says no, and fills the captures that come from the answer.
    fn response_keys(answer: &Self::Answer, sent: Sent<'_>, keys: &mut Keys) -> Result<(), Error>;

    /// Calls the handler. The context is there when the description asks for it.
    fn call<'a>(
        service: &'a S,
        request: Self::Request<'a>,
        context: Option<&Context>,
    ) -> impl Future<Output = Self::Returned> + Send;

    /// Takes apart what it returned.
    fn split(returned: Self::Returned) -> Result<Self::Answer, Self::Error>;
}

/// The body of a request, for a `when` that reads it after the handler has taken the request: decoded a second time, which asks
/// nothing of the request's type and costs nobody else anything.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'m> {
    pub(crate) codec: Codec,
    pub(crate) body: &'m [u8],
}

impl<'m> Sent<'m> {
    /// The request once more.
    ///
    /// # Errors
    /// None: it was decoded before. But a type may have its own way of decoding, so this does not panic.
    pub fn decode<T: Deserialize<'m>>(self) -> Result<T, Error> {
        let decoded = self.codec.decode(self.codec.body_or_unit(self.body));
        decoded.map_err(|error| Error::internal(error.to_string()))
    }
}

/// One method that streams, as the server sees it.
pub trait HandleStream<S>: Method {
    /// The body, which may borrow from the message: the arguments that are no stream.
    type Request<'de>: Deserialize<'de> + Send
    where
        S: 'de;

    /// Calls the handler.
    fn open<'a>(
        service: &'a S,
        request: Self::Request<'a>,
        context: Option<&'a Context>,
        side: Side,
    ) -> Opening<'a>;
}

/// What the server takes: a generated `..Server<S>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "not something a server can serve",
    note = "wrap your implementation in the server that the trait generated: `.serve(ProfilesServer::new(..))`"
)]
pub trait Service: Send + Sync + 'static {
    /// The contract.
    fn spec(&self) -> &'static ServiceSpec;
    /// Hands the methods over.
    fn mount(self, mount: &mut Mount);
}

/// A client of a service in the same process.
#[must_use]
pub fn local(service: impl Service) -> ClientCore {
    ClientCore::local(crate::service::local(service))
}

/// Tells a `Result` from any other type, by what it is and not by what it is called.
#[derive(Debug)]
pub struct Check<T>(PhantomData<T>);

impl<T, E> Check<Result<T, E>> {
    /// It is one.
    pub const IS_RESULT: bool = true;
}

/// The answer for everything else: an inherent constant wins over a trait's.
pub trait NoResult {
    /// It is none.
    const IS_RESULT: bool = false;
}

impl<T> NoResult for Check<T> {}

/// Chooses between the two.
#[derive(Debug)]
pub struct Pick<const RESULT: bool>;

/// What a method's return type stands for.
pub trait Outcome<R> {
    /// The value of a success.
    type Answer;
    /// The error of a failure.
    type Error;
    /// Takes it apart.
    fn split(returned: R) -> Result<Self::Answer, Self::Error>;
}

impl<T, E> Outcome<Result<T, E>> for Pick<true> {
    type Answer = T;
    type Error = E;
    fn split(returned: Result<T, E>) -> Result<T, E> {
        returned
    }
}

impl<T> Outcome<T> for Pick<false> {
    type Answer = T;
    type Error = Infallible;
    fn split(returned: T) -> Result<T, Infallible> {
        Ok(returned)
    }
}

/// Awaits a handler and takes its outcome apart.
pub async fn settle<P, R>(handler: impl Future<Output = R> + Send) -> Result<P::Answer, P::Error>
where
    P: Outcome<R>,
{
    P::split(handler.await)
}

/// What an argument that is marked with `#[context]` refers to.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the context of a call",
    label = "an argument that is marked with `#[context]` is a `&nats_service::Context`",
    note = "write `#[context] ctx: &nats_service::Context`, or remove the mark to make the argument a part of the body"
)]
pub trait CallContext {
    /// The same, under its own name.
    fn of(context: &Context) -> &Self;
}

impl CallContext for Context {
    fn of(context: &Context) -> &Self {
        context
    }
}

/// What would let a context be a part of a body, and nothing is: the words for a `#[context]` that is missing. A bound without a
/// lifetime of the implementation's would be decided where it is written, and not where it is used. `Deserialize` has none like
/// it: the compiler would list `&Context` to everybody whose type is not `Deserialize`.
#[diagnostic::on_unimplemented(
    message = "the context of a call is no part of its request, and this argument is not marked as the context",
    label = "would be a part of the request's body",
    note = "mark it: `#[context] ctx: &nats_service::Context`"
)]
pub trait InBody {}

/// What has it not.
#[derive(Debug)]
pub struct Unmarked<'a>(PhantomData<&'a ()>);

impl<'a> Serialize for Context
where
    Unmarked<'a>: InBody,
{
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("a context is in no body"))
    }
}

/// The context, for a handler that asks for it.
///
/// # Panics
/// Never: the description of a method says whether it has one, and comes from the same argument as the call of this.
#[must_use]
pub fn context<C: CallContext + ?Sized>(context: Option<&Context>) -> &C {
    match context {
        Some(context) => C::of(context),
        None => unreachable!("the method's description asks for a context"),
    }
}

/// A handler that cannot fail to begin.
pub async fn infallible<R>(handler: impl Future<Output = R> + Send) -> Result<R, Infallible> {
    Ok(handler.await)
}

/// Asks for what an answer must be able to do; generated code calls it with the span of the user's type.
pub const fn assert_answer<T: Serialize + DeserializeOwned + Send + 'static>() {}

/// Asks for what an error must be able to do.
pub const fn assert_error<E: ServiceError>() {}

/// Asks for what a body must be able to do.
pub const fn assert_request<'de, R: Serialize + Deserialize<'de> + Send>() {}

/// Two stores of one bucket whose keys cannot be told apart must keep one type.
#[diagnostic::on_unimplemented(
    message = "this bucket holds `{Self}` and `{Other}` under keys that cannot be told apart",
    label = "here it is `{Self}`, and in the other method `{Other}`",
    note = "a reader could not tell which of the two it gets: let the keys differ in a literal token (`user.<id>`, `report.<id>`), or use a bucket for each"
)]
pub trait SameAnswer<Other> {}

impl<T> SameAnswer<T> for T {}

/// Asks for it; generated code calls it with the spans of the two keys.
pub const fn assert_same_answer<A: SameAnswer<B>, B>() {}

/// A field of a typed error, which crosses the wire.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross the wire as a field of an error",
    label = "it is no `Serialize` and `Deserialize`",
    note = "derive serde's two traits for a type of your own; of an error that comes from elsewhere keep what the caller is to know, and the error itself as a `nats_service::Cause`, which is logged and not sent"
)]
pub trait ErrorField: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> ErrorField for T {}

/// One field of a typed error, as JSON. Null when its type has no form in JSON: the peer then gets the untyped error.
pub fn error_field<T: ErrorField>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// A field of a typed error that is what lies behind it. Known by its type, so that it needs no mark.
#[must_use]
pub fn cause<T: 'static>(field: &T) -> Option<&(dyn std::error::Error + 'static)> {
    let cause = (field as &dyn std::any::Any).downcast_ref::<crate::Cause>();
    cause.map(|cause| cause as &(dyn std::error::Error + 'static))
}

/// The details of an error with named fields.
pub fn error_object<const N: usize>(fields: [(&str, serde_json::Value); N]) -> serde_json::Value {
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    serde_json::Value::Object(fields.into_iter().collect())
}

/// The details of an error with numbered fields.
pub fn error_array<const N: usize>(fields: [serde_json::Value; N]) -> serde_json::Value {
    serde_json::Value::Array(Vec::from(fields))
}

/// A field of a typed error out of what came. A missing one is null, so that an optional field may be added later.
pub fn restore_field<T: ErrorField>(
    error: &Error,
    index: impl serde_json::value::Index,
) -> Option<T> {
    let null = serde_json::Value::Null;
    T::deserialize(error.details().get(index).unwrap_or(&null)).ok()
}
