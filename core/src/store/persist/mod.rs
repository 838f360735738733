//! The writer behind `write = "after_reply"`.
