//! Where an endpoint's requests come from: a subscription, or callers in this process.

use super::drain;
use async_nats::{Client, Message, Subscriber};
use futures_util::Stream as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) enum Intake {
    Nats(Client, Subscriber),
    Local(mpsc::Receiver<Message>),
}

impl Intake {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        match self {
            Intake::Nats(_, subscription) => Pin::new(subscription).poll_next(cx),
            Intake::Local(receiver) => receiver.poll_recv(cx),
        }
    }

    /// Makes it end after the last request that was sent.
    pub(crate) async fn end(&mut self) {
        match self {
            Intake::Nats(client, subscription) => drain::end_intake(client, subscription).await,
            Intake::Local(receiver) => receiver.close(),
        }
    }
}
