//! The reply inbox of a client: one subscription, and who waits for what in it.
//!
//! async-nats has one of its own, but a request that times out stays in its table for good (about 350 bytes each). Here an
//! entry goes with the call that made it, however that ends.

use crate::wire::replies::Replies;
use async_nats::{Client, SubscribeError, Subscriber};
use futures_util::StreamExt as _;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;

#[derive(Debug)]
pub(crate) struct Mux {
    pub(crate) client: Client,
    /// The inbox, with its final dot.
    pub(crate) prefix: String,
    replies: Arc<Replies>,
    /// The task that reads the subscription; started by the first call.
    reader: OnceCell<AbortHandle>,
}

impl Mux {
    pub(crate) fn new(client: Client) -> Self {
        let prefix = format!("{}.", client.new_inbox());
        Self {
            client,
            prefix,
            replies: Arc::default(),
            reader: OnceCell::new(),
        }
    }

    /// The table, and an inbox whose replies come into it.
    pub(crate) async fn replies(&self) -> Result<&Arc<Replies>, SubscribeError> {
        if !self.reader.initialized() {
            // Boxed, so that a call that is not the first has no room for this in it.
            Box::pin(self.reader.get_or_try_init(|| self.start())).await?;
        }
        Ok(&self.replies)
    }

    async fn start(&self) -> Result<AbortHandle, SubscribeError> {
        let subscription = self.client.subscribe(format!("{}*", self.prefix)).await?;
        let reader = read(subscription, self.prefix.len(), Arc::clone(&self.replies));
        Ok(tokio::spawn(reader).abort_handle())
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.get() {
            reader.abort();
        }
    }
}

async fn read(mut subscription: Subscriber, prefix: usize, replies: Arc<Replies>) {
    while let Some(message) = subscription.next().await {
        // A copy of a subject is a counted reference.
        let subject = message.subject.clone();
        replies.deliver(subject.get(prefix..), message);
    }
    // The connection is closed for good. Whoever waits is told at once.
    replies.clear();
}
