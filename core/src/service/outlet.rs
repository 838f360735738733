//! Where replies go: to the connection, or to a caller in this process.

use crate::wire::loopback::LocalOutlet;
use async_nats::{Client, HeaderMap, PublishError, Subject};
use bytes::Bytes;

#[derive(Debug, Clone)]
pub(crate) enum Outlet {
    Nats(Client),
    Local(LocalOutlet),
}

impl Outlet {
    pub(crate) async fn publish(&self, reply: Subject, body: Bytes) -> Result<(), PublishError> {
        match self {
            Outlet::Nats(client) => client.publish(reply, body).await,
            Outlet::Local(local) => {
                local.publish(reply, None, body);
                Ok(())
            }
        }
    }

    pub(crate) async fn publish_with_headers(
        &self,
        reply: Subject,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(), PublishError> {
        match self {
            Outlet::Nats(client) => client.publish_with_headers(reply, headers, body).await,
            Outlet::Local(local) => {
                local.publish(reply, Some(headers), body);
                Ok(())
            }
        }
    }

    /// The most bytes that a message may have, headers and all.
    pub(crate) fn max_payload(&self) -> usize {
        match self {
            Outlet::Nats(client) => client.max_payload(),
            Outlet::Local(local) => local.max_payload,
        }
    }
}
