//! nats-service
