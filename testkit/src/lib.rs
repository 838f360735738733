//! A private, real nats-server for tests.
