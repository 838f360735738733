//! What may stand in a capture of a key, and of a filter.

use std::borrow::Cow;
use std::sync::Arc;

/// A value that can stand in a key.
///
/// Strings, integers, `bool` and `char` can. A type of your own says how:
///
/// ```
/// use nats_service::KeyToken;
/// use std::borrow::Cow;
///
/// struct OrderId(u64);
/// impl KeyToken for OrderId {
///     fn key_token(&self) -> Cow<'_, str> {
///         Cow::Owned(format!("o{}", self.0))
///     }
/// }
/// assert_eq!(OrderId(7).key_token(), "o7");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be one token of a key",
    label = "a key cannot be made from this type",
    note = "strings, integers, `bool` and `char` can, and a type of your own that implements `nats_service::KeyToken`"
)]
pub trait KeyToken {
    /// The text, unchecked: whoever builds the key checks it.
    fn key_token(&self) -> Cow<'_, str>;
}

/// What would let an `Option` be a token, and nothing is: the words for a key of something that may be absent. A bound on the
/// `Option` itself would be told in the words of [`KeyToken`].
#[diagnostic::on_unimplemented(
    message = "a key cannot be made from an `Option`, which has no token when it is `None`",
    label = "this may be `None`, and each entry has a key",
    note = "use a field that is always there, or one of the answer: `<response.id>`",
    note = "where `None` is a case of its own, give it a token: a type of yours in place of the `Option`, with `impl nats_service::KeyToken`"
)]
pub trait NeverNone {}

/// What has it not.
#[derive(Debug)]
pub struct MayBeNone<T>(std::marker::PhantomData<T>);

#[doc(hidden)]
impl<T> KeyToken for Option<T>
where
    MayBeNone<T>: NeverNone,
{
    fn key_token(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }
}

impl KeyToken for str {
    fn key_token(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl KeyToken for String {
    fn key_token(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl KeyToken for Cow<'_, str> {
    fn key_token(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

macro_rules! token_by_reference {
    ($($type:ty),+) => {$(
        impl<T: KeyToken + ?Sized> KeyToken for $type {
            fn key_token(&self) -> Cow<'_, str> {
                (**self).key_token()
            }
        }
    )+};
}
token_by_reference!(&T, Box<T>, Arc<T>, std::rc::Rc<T>);

macro_rules! token_by_display {
    ($($type:ty),+) => {$(
        impl KeyToken for $type {
            fn key_token(&self) -> Cow<'_, str> {
                Cow::Owned(self.to_string())
            }
        }
    )+};
}
token_by_display!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, bool, char
);

/// A value for a place in a filter: a token, or [`Any`].
///
/// ```
/// use nats_service::{Any, KeyFilter};
/// assert_eq!("eu".filter_token().as_deref(), Some("eu"));
/// assert_eq!(Any.filter_token(), None);
/// ```
pub trait KeyFilter {
    /// The text; `None` stands for everything.
    fn filter_token(&self) -> Option<Cow<'_, str>>;
}

/// Everything, in a place of a filter.
///
/// ```
/// use nats_service::{Any, KeyFilter};
/// assert!(Any.filter_token().is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Any;

impl KeyFilter for Any {
    fn filter_token(&self) -> Option<Cow<'_, str>> {
        None
    }
}

impl<T: KeyToken> KeyFilter for T {
    fn filter_token(&self) -> Option<Cow<'_, str>> {
        Some(self.key_token())
    }
}
