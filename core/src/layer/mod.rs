//! Layers of [tower](https://docs.rs/tower) around calls, with the feature `tower`: what they see of one, a [`Request`] and a
//! [`Response`], and what they are put around, [`Next`].
//!
//! `Server::layer` is for all methods of all services, `ProfilesServer::layer` for those of one, `ProfilesClient::layer` for the
//! calls of a client. The first layer is the outermost. tower's own work as they come, and their errors have codes: `Elapsed` is
//! `DeadlineExceeded`, `Overloaded` is `ResourceExhausted`. An [`Error`](crate::Error) that a layer fails with is sent to the caller;
//! any other error is logged, and its caller is told `Internal`, without the text.
//!
//! ```
//! # use nats_service::{Server, nats_service};
//! # use std::time::Duration;
//! use tower::timeout::TimeoutLayer;
//! # #[nats_service] pub trait Greeter { async fn hello(&self, name: String) -> String; }
//! # fn serve(nats: async_nats::Client, polite: impl Greeter) -> Server {
//! Server::new(nats).layer(TimeoutLayer::new(Duration::from_secs(1))).serve(GreeterServer::new(polite))
//! # }
//! ```
//!
//! It leaves out what is typed, since layers see bytes, and what comes after the answer: reply and stores.

#[cfg(feature = "tower")]
mod fault;
mod layers;
#[cfg(feature = "tower")]
mod message;
#[cfg(feature = "tower")]
mod next;

pub use layers::{CallLayer, Layers};

#[cfg(feature = "tower")]
pub use {
    message::{Request, Response},
    next::Next,
};

#[cfg(feature = "tower")]
pub(crate) use {
    fault::{code_of, refusal},
    message::Wants,
    next::Stack,
};

/// What layers fail with.
#[cfg(feature = "tower")]
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
