//! Calls that stream: how one is opened, and what its caller gets.
//!
//! `open` is the same for all of them and compiled once; `call` is one as its caller sees it, `answer` what comes of it.
//! What keeps a stream in order is `crate::streaming`.

mod answer;
mod call;
mod open;

pub use answer::Streaming;
pub use call::{StreamCall, UploadCall, Uploaded};
