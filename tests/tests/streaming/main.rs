//! The promises of streams, against real servers.

mod answers;
