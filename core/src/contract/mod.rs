//! The contract as a document: what a trait promises, for people and programs that do not read Rust.
//!
//! `..Contract::asyncapi()` is generated for every trait, and needs neither an implementation nor a server: AsyncAPI 3.1 with a
//! JSON Schema for every message. [`check`] compares it, in a test, with the one that was committed, and says which
//! version a change asks for.
//!
//! `describe` is what types say of themselves, `document` puts it together, with what `streams` adds for methods that stream, `compare` finds what has changed, and
//! `check` judges it. What a served contract shows in discovery is `AsyncApi::short_forms`'s business; validity by the
//! official schema is held by a test.

mod check;
mod compare;
mod describe;
mod document;
mod short;
mod streams;

pub use check::{Bump, ContractError, Unchanged, check, check_against};
pub use compare::{Difference, differences};
pub use describe::{DescribeError, ErrorVariant};
pub use document::AsyncApi;
pub(crate) use short::ShortForms;

#[doc(hidden)]
pub use describe::{Described, MethodBuilder, NoMethod};
#[doc(hidden)]
pub use document::ContractBuilder;
