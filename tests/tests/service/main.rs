//! The service runtime's promises, against a real server. What happens when the server itself fails is in `faults`.

mod bad_input;
mod bad_keys;
mod discovery;
mod dispatch;
mod errors;
mod large;
mod persistence;
mod placement;
mod provisioning;
mod replies;
mod shutdown;
mod stored;
mod stores;
mod streams;
