//! What can go wrong between a caller and a bucket.

use super::key::KeyError;
use crate::wire::codec::CodecError;

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Neither the client nor the server was given a JetStream context.
    #[error(
        "no JetStream: pass `async_nats::jetstream::new(nats.clone())` to `with_jetstream(..)` to use the stores; calls work without it"
    )]
    NoJetStream,
    /// The key is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value could not be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}
