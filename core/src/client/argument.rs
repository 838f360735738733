//! What a generated client's methods take.

use crate::wire::codec::Encode;
use serde::{Serialize, Serializer};
use std::fmt;

/// An argument of type `T`: the value, a reference to it, or, for a `String`, any `&str`.
///
/// A call encodes its arguments at once, so a reference is enough, and text is written in the same way whoever owns it.
///
/// ```
/// # use nats_service::nats_service;
/// #[nats_service]
/// trait Greeter {
///     async fn hello(&self, name: String, times: u32) -> String;
/// }
/// # fn calls(greeter: GreeterClient, name: String) {
/// greeter.hello("Ada", 1);
/// greeter.hello(&name, &2);
/// greeter.hello(name, 3);
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "the method takes a `{T}` here, and this is a `{Self}`",
    label = "expected `{T}` or a reference to one",
    note = "a client's method takes what the trait's takes, by value or by reference, and a `&str` for a `String`"
)]
pub trait Argument<T> {
    /// The body of a call that has this one argument.
    fn body(&self) -> Body<'_>
    where
        T: Serialize;

    /// One of several, of which the body is made.
    fn part(&self) -> Part<'_, T>;
}

/// What a call encodes, whatever its type.
pub struct Body<'a>(pub(super) &'a dyn Encode);

impl<'a> Body<'a> {
    /// This value.
    pub fn of<T: Serialize>(value: &'a T) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

/// What a call encodes of one of its arguments, which is of type `T`.
#[derive(Debug)]
pub struct Part<'a, T>(Form<'a, T>);

#[derive(Debug)]
enum Form<'a, T> {
    Value(&'a T),
    /// Of a `T` that is written as text is.
    Text(&'a str),
}

impl<T: Serialize> Serialize for Part<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Form::Value(value) => value.serialize(serializer),
            Form::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<T> Argument<T> for T {
    fn body(&self) -> Body<'_>
    where
        T: Serialize,
    {
        Body(self)
    }

    fn part(&self) -> Part<'_, T> {
        Part(Form::Value(self))
    }
}

impl<T> Argument<T> for &T {
    fn body(&self) -> Body<'_>
    where
        T: Serialize,
    {
        Body(*self)
    }

    fn part(&self) -> Part<'_, T> {
        Part(Form::Value(self))
    }
}

impl Argument<String> for &str {
    fn body(&self) -> Body<'_> {
        Body(self)
    }

    fn part(&self) -> Part<'_, String> {
        Part(Form::Text(self))
    }
}
