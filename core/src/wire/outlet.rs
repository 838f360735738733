//! Where messages go: to the connection, or to the other side in this process.

use super::loopback::LocalOutlet;
use async_nats::connection::State;
use async_nats::{Client, HeaderMap, PublishError, Subject};
use bytes::Bytes;

#[derive(Debug, Clone)]
pub(crate) enum Outlet {
    Nats(Client),
    Local(LocalOutlet),
}

impl Outlet {
    pub(crate) async fn publish(&self, to: Subject, body: Bytes) -> Result<(), PublishError> {
        match self {
            Outlet::Nats(client) => client.publish(to, body).await,
            Outlet::Local(local) => {
                local.publish(to, None, None, body);
                Ok(())
            }
        }
    }

    pub(crate) async fn publish_with_headers(
        &self,
        to: Subject,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(), PublishError> {
        match self {
            Outlet::Nats(client) => client.publish_with_headers(to, headers, body).await,
            Outlet::Local(local) => {
                local.publish(to, None, Some(headers), body);
                Ok(())
            }
        }
    }

    /// One that says where its sender is heard.
    pub(crate) async fn publish_with_reply(
        &self,
        to: Subject,
        reply: Subject,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(), PublishError> {
        match self {
            Outlet::Nats(client) => {
                client
                    .publish_with_reply_and_headers(to, reply, headers, body)
                    .await
            }
            Outlet::Local(local) => {
                local.publish(to, Some(reply), Some(headers), body);
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

    /// What is sent now does not wait for a connection.
    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Outlet::Nats(client) => client.connection_state() == State::Connected,
            Outlet::Local(_) => true,
        }
    }

    /// An inbox for several subjects of one more token, with its final dot.
    pub(crate) fn new_inbox(&self) -> String {
        match self {
            Outlet::Nats(client) => format!("{}.", client.new_inbox()),
            Outlet::Local(local) => local.new_inbox(),
        }
    }
}
