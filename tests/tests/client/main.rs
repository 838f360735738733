//! The client's own promises: which calls are sent again, how all instances are asked, and calls with no server.

mod local;
mod many;
mod retry;
