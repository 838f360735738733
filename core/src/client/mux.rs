//! The reply inbox of a client: one subscription, and a table of who waits for what.
//!
//! async-nats has one of its own, but a request that times out stays in its table for good (about 350 bytes each). Here an
//! entry goes with the call that made it, however that ends.

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{OnceCell, oneshot};
use tokio::task::AbortHandle;

#[derive(Debug)]
pub(crate) struct Mux {
    pub(crate) client: Client,
    /// The inbox, with its final dot.
    prefix: String,
    next: AtomicU64,
    table: Arc<Table>,
    /// The task that reads the subscription; started by the first call.
    reader: OnceCell<AbortHandle>,
}

type Waiting = HashMap<u64, oneshot::Sender<Message>>;

#[derive(Debug, Default)]
struct Table(Mutex<Waiting>);

impl Table {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code that can panic runs under the lock.
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A reply that is waited for. Dropping it forgets the call.
pub(crate) struct Pending {
    number: u64,
    table: Arc<Table>,
    receiver: oneshot::Receiver<Message>,
    /// Where the reply is to go.
    pub(crate) subject: String,
}

impl Mux {
    pub(crate) fn new(client: Client) -> Self {
        let prefix = format!("{}.", client.new_inbox());
        Self {
            client,
            prefix,
            next: AtomicU64::new(0),
            table: Arc::default(),
            reader: OnceCell::new(),
        }
    }

    /// A new entry in the table, with its reply subject.
    pub(crate) async fn register(&self) -> Result<Pending, async_nats::SubscribeError> {
        self.reader.get_or_try_init(|| self.start()).await?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.table.lock().insert(number, sender);
        Ok(Pending {
            number,
            table: Arc::clone(&self.table),
            receiver,
            subject: format!("{}{number}", self.prefix),
        })
    }

    async fn start(&self) -> Result<AbortHandle, async_nats::SubscribeError> {
        let subscription = self.client.subscribe(format!("{}*", self.prefix)).await?;
        let reader = read(subscription, self.prefix.len(), Arc::clone(&self.table));
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

async fn read(mut subscription: Subscriber, prefix: usize, table: Arc<Table>) {
    while let Some(message) = subscription.next().await {
        // A late reply finds no entry, and a stray one no number: neither is anybody's.
        let number = message
            .subject
            .get(prefix..)
            .and_then(|number| number.parse().ok());
        let waiting = number.and_then(|number: u64| table.lock().remove(&number));
        if let Some(waiting) = waiting {
            let _ = waiting.send(message);
        }
    }
    // The connection is closed for good. Whoever waits is told at once, by its sender being dropped.
    table.lock().clear();
}

impl Pending {
    /// The reply; `None` when the connection was closed.
    pub(crate) async fn reply(&mut self) -> Option<Message> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.table.lock().remove(&self.number);
    }
}
