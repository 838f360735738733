//! What can keep a server from starting, and the way out of each.

use crate::connection::Denial;
use crate::store::{BucketConflict, ProvisionError};
use crate::wire::subject::PrefixError;
use std::time::Duration;

/// A server could not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No service was added.
    #[error("nothing to serve: add a service with `.serve(..)`")]
    NoService,
    /// Two methods listen on one subject.
    #[error("two methods listen on `{subject}`: give one of the services another `subject`")]
    SubjectTaken {
        /// The whole subject.
        subject: &'static str,
    },
    /// What was given to [`Server::prefix`](crate::Server::prefix) cannot stand in a subject.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// The queue group cannot be one.
    #[error(
        "`{name}` cannot be a queue group: it consists of ASCII letters, digits, `_`, `-` and single dots"
    )]
    QueueGroup {
        /// What was given to [`Server::queue_group`](crate::Server::queue_group).
        name: String,
    },
    /// A method answers with a [`ByteStream`](crate::ByteStream), and nothing says where to put it.
    #[error(
        "`{subject}` answers with a `ByteStream`, which is kept as an object: add `#[object_store(bucket = .., key = ..)]` to the method"
    )]
    StreamWithoutObject {
        /// The method's subject.
        subject: &'static str,
    },
    /// A method answers with a [`ByteStream`](crate::ByteStream), which leaves nothing to keep or to decide once it is stored.
    #[error(
        "`{subject}` answers with a `ByteStream`, which is read once, into one object store, whatever it is: remove the method's other stores of the answer, and `when`"
    )]
    StreamKeptOtherwise {
        /// The method's subject.
        subject: &'static str,
    },
    /// A method promises what needs JetStream, and there is none.
    #[error(
        "`{subject}` stores its answer before it replies (`write = \"before_reply\"`, or a `ByteStream`), which needs JetStream: pass `async_nats::jetstream::new(nats.clone())` to `Server::with_jetstream`"
    )]
    NoJetStream {
        /// The method's subject.
        subject: &'static str,
    },
    /// Two services want one bucket with different settings.
    #[error(transparent)]
    Bucket(#[from] BucketConflict),
    /// A bucket is not as it has to be.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// The server refused a subscription.
    #[error("cannot subscribe to `{subject}`")]
    Subscribe {
        /// What was to be subscribed to.
        subject: String,
        /// What async-nats says.
        source: async_nats::SubscribeError,
    },
    /// A service's codec has the media type of another one.
    #[cfg(feature = "codecs")]
    #[error(transparent)]
    Codec(#[from] crate::wire::codec::CodecTaken),
    /// The server's permissions deny what a service needs. Only a connection with
    /// [`ConnectionEvents`](crate::ConnectionEvents) shows it.
    #[error("the service would not work: {0}")]
    Denied(Denial),
    /// The server did not confirm the subscriptions.
    #[error(
        "the server did not confirm the subscriptions within {after:?}; is it reachable, and may this user publish and subscribe under its own inbox prefix?"
    )]
    NotConfirmed {
        /// How long we waited.
        after: Duration,
    },
}
