//! The RPC runtime: description, dispatch, discovery, limits, drain.
//!
//! A request's way: `endpoint` takes it from the subscription and polls it once in place; `admit` sees what it is written in
//! and holds room for its answer; `invoke` has it served, by way of `typed`, which decodes it, calls the handler and encodes the
//! answer; `finish` replies and hands the answer to the stores. What answers `$SRV` is `discovery`, what stops it all is `running`.
//!
//! It meets the engine at start, where `stores` makes the buckets, in `finish` ("here are the bytes of a reply, and where they
//! belong"), and in `cache`, which looks into a bucket before a call.

mod admit;
mod cache;
mod confirm;
mod discovery;
mod drain;
mod endpoint;
mod finish;
mod intake;
mod invoke;
#[cfg(feature = "tower")]
mod layered;
mod local;
mod placement;
mod reply;
mod running;
mod server;
mod start_error;
mod stats;
mod stores;
mod streaming;
mod typed;

pub use invoke::Mount;
pub(crate) use local::local;
pub use running::{Running, ShutdownError, ShutdownReport};
pub use server::Server;
pub use start_error::StartError;
pub use streaming::{Opening, Requests, Side};
