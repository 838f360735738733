//! The attribute macros of `nats-service`.
