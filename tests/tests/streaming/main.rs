//! The promises of streams, against real servers: what they carry, how they flow, and what happens when something is lost.

mod answers;
mod flow;
mod loss;
mod wire;
