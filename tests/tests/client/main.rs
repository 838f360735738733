//! The client's own promises: which calls are sent again, and which never.

mod retry;
