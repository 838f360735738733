//! Keys: the template, what may stand in a capture, and the three things a template is for: build a key, build a filter,
//! take a key apart.
//!
//! A value is never pasted into a key as it is. `user.<id>` with `7.admin` or `*` is refused, because one capture is one
//! token; so no two values share a key, and no value reaches another's.

mod keys;
mod rule;
mod template;
mod token;

pub use keys::Keys;
pub use rule::{KeyError, KeyRule, check_key};
pub(crate) use template::everything;
pub use template::{Capture, CaptureForm, KeySource, KeyTemplate, Segment};
pub use token::{Any, KeyFilter, KeyToken};

#[cfg(test)]
mod tests;
