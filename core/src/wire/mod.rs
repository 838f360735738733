//! What a service and its callers agree on: the codec, the error table, the headers, a call's context, and the description of a contract.
//!
//! Nothing here opens a subscription or touches a store; both sides and the engine use it.

pub(crate) mod cause;
pub(crate) mod codec;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod error_reply;
pub(crate) mod frame;
pub(crate) mod header;
pub(crate) mod loopback;
pub(crate) mod moment;
pub(crate) mod outlet;
pub(crate) mod replies;
pub(crate) mod spec;
pub(crate) mod stream;
pub(crate) mod subject;
