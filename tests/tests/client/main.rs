//! The client's own promises: which calls are sent again, how all instances are asked, which deployment is called, and calls with no server.

mod deployments;
mod local;
mod local_streams;
mod many;
mod retry;
