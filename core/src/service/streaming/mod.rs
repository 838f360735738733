//! Endpoints that stream: how one is opened, what runs it, and how it counts.
//!
//! A stream is one request that takes long: it holds its place among the requests in flight, and whatever ends those ends it,
//! with an error reply in place of its next frame. What keeps it in order is `crate::streaming`; the types of a handler are
//! `side`'s.

mod endpoint;
mod open;
mod side;

pub(crate) use endpoint::mounted;
pub(crate) use open::{StreamLimits, Streams};
pub use side::{Opening, Requests, Side};
