//! A list of layers, as servers and clients collect it.

use std::fmt;

#[cfg(feature = "tower")]
use {super::Next, super::Stack, super::message::Bounds, std::sync::Arc};

/// What `layer(..)` takes: a `tower::Layer` around [`Next`](crate::layer::Next).
#[cfg(feature = "tower")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no layer for calls",
    label = "this cannot be put around a call",
    note = "it has to be a `tower::Layer<nats_service::layer::Next>`; its service takes `layer::Request`, answers with `layer::Response`, and is `Clone` and `Send`",
    note = "one whose service is not `Clone`, a `RateLimitLayer` say, goes behind a `BufferLayer`: `ServiceBuilder::new().buffer(64).rate_limit(..)`"
)]
pub trait CallLayer: Send + Sync + 'static {
    /// Puts it around a service.
    #[doc(hidden)]
    fn wrap(&self, next: Next) -> Next;
}

#[cfg(feature = "tower")]
impl<L> CallLayer for L
where
    L: tower::Layer<Next, Service: Bounds> + Send + Sync + 'static,
{
    fn wrap(&self, next: Next) -> Next {
        Next::new(self.layer(next))
    }
}

/// What `layer(..)` takes, with the feature `tower`.
#[cfg(not(feature = "tower"))]
#[diagnostic::on_unimplemented(
    message = "layers need the feature `tower` of `nats-service`",
    label = "this cannot be put around a call",
    note = "switch it on: `cargo add nats-service --features tower`"
)]
pub trait CallLayer: Send + Sync + 'static {}

/// Layers in the order in which they were given: the first is the outermost, and sees a request first.
#[derive(Clone, Default)]
pub struct Layers {
    #[cfg(feature = "tower")]
    list: Vec<Arc<dyn CallLayer>>,
}

impl Layers {
    /// Adds one, inside the others.
    pub fn push(&mut self, layer: impl CallLayer) {
        #[cfg(feature = "tower")]
        self.list.push(Arc::new(layer));
        #[cfg(not(feature = "tower"))]
        let _ = layer;
    }
}

#[cfg(feature = "tower")]
impl Layers {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// These around those.
    pub(crate) fn and(&self, inner: &Self) -> Self {
        let list = self.list.iter().chain(&inner.list).cloned().collect();
        Self { list }
    }

    /// Puts all of them around `end`.
    pub(crate) fn around(&self, end: Next) -> Stack {
        let layers = self.list.iter().rev();
        Stack::new(layers.fold(end, |inner, layer| layer.wrap(inner)))
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").finish_non_exhaustive()
    }
}
