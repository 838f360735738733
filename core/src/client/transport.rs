//! How requests leave and replies come: over a connection, or to a service in this process.

use super::error::CallError;
use super::exchange::Failure;
use super::mux::Mux;
use crate::wire::header;
use crate::wire::loopback::Loopback;
use crate::wire::outlet::Outlet;
use crate::wire::replies::{Pending, Replies, Several};
use async_nats::{Client, HeaderMap, Subject};
use bytes::Bytes;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) enum Transport {
    Nats(Mux),
    Local(Loopback),
}

impl Transport {
    /// The connection, where there is one.
    pub(crate) fn client(&self) -> Option<&Client> {
        match self {
            Transport::Nats(mux) => Some(&mux.client),
            Transport::Local(_) => None,
        }
    }

    /// Where streams speak.
    pub(super) fn outlet(&self) -> Outlet {
        match self {
            Transport::Nats(mux) => Outlet::Nats(mux.client.clone()),
            Transport::Local(local) => Outlet::Local(local.outlet().clone()),
        }
    }

    /// What all reply subjects of a connection begin with.
    pub(super) fn inbox_prefix(&self) -> Option<&str> {
        match self {
            Transport::Nats(mux) => Some(&mux.prefix),
            Transport::Local(_) => None,
        }
    }

    /// The most bytes that a message may have, headers and all.
    pub(super) fn max_payload(&self) -> usize {
        match self {
            Transport::Nats(mux) => mux.client.max_payload(),
            Transport::Local(local) => local.max_payload(),
        }
    }

    async fn replies(&self) -> Result<&Arc<Replies>, Failure> {
        match self {
            Transport::Nats(mux) => mux.replies().await.map_err(connection),
            Transport::Local(local) => Ok(local.replies()),
        }
    }

    fn inbox(&self, number: u64) -> Subject {
        match self {
            Transport::Nats(mux) => format!("{}{number}", mux.prefix).into(),
            Transport::Local(_) => Loopback::inbox(number),
        }
    }

    /// A place for one reply, and where it is to go.
    pub(super) async fn one(&self) -> Result<(Pending, Subject), Failure> {
        let pending = self.replies().await?.one();
        let inbox = self.inbox(pending.number());
        Ok((pending, inbox))
    }

    /// A place for at most so many replies, and where they are to go.
    pub(super) async fn several(&self, most: usize) -> Result<(Several, Subject), Failure> {
        let several = self.replies().await?.several(most);
        let inbox = self.inbox(several.number());
        Ok((several, inbox))
    }

    /// The server ends the connection of a client that sends more than it takes, headers included.
    pub(super) fn check(
        &self,
        subject: impl FnOnce() -> Subject,
        headers: Option<&HeaderMap>,
        body: &Bytes,
    ) -> Result<(), Failure> {
        let size = body.len() + headers.map_or(0, header::size);
        let max = self.max_payload();
        if size > max {
            let subject = subject();
            return Err(CallError::TooLarge { subject, size, max });
        }
        Ok(())
    }

    pub(super) async fn send(
        &self,
        subject: Subject,
        reply: Subject,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<(), Failure> {
        let client = match self {
            Transport::Nats(mux) => &mux.client,
            Transport::Local(local) => {
                let sent = local.send(subject, reply, headers, body).await;
                return sent.map_err(connection);
            }
        };
        let sent = match headers {
            None => client.publish_with_reply(subject, reply, body).await,
            Some(headers) => {
                client
                    .publish_with_reply_and_headers(subject, reply, headers, body)
                    .await
            }
        };
        sent.map_err(connection)
    }
}

pub(super) fn connection(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    CallError::Connection(source.into())
}
