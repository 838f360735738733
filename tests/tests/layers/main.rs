//! Layers of tower around calls: as they come from tower, on the service's side and on the client's.

mod client;
mod gate;
mod server;
