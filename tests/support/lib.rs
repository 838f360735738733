//! What the real-server tests share.
