//! Who waits for which reply: a table from the number at the end of a reply subject to its caller.
//!
//! An entry goes with the call that made it, however that ends. How a reply travels is not known here.

use async_nats::Message;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{mpsc, oneshot};

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiter>>,
}

#[derive(Debug)]
enum Waiter {
    One(oneshot::Sender<Message>),
    Several(mpsc::Sender<Message>),
}

/// An entry of the table; dropping it takes it out.
#[derive(Debug)]
struct Entry {
    number: u64,
    table: Arc<Replies>,
}

/// One reply that is waited for. Dropping it forgets the call.
#[derive(Debug)]
pub(crate) struct Pending {
    entry: Entry,
    receiver: oneshot::Receiver<Message>,
}

/// Replies of several instances to one request. Dropping it forgets the call.
#[derive(Debug)]
pub(crate) struct Several {
    entry: Entry,
    receiver: mpsc::Receiver<Message>,
}

impl Replies {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiter>> {
        // No code that can panic runs under the lock.
        self.waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn enter(self: &Arc<Self>, waiter: Waiter) -> Entry {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, waiter);
        Entry {
            number,
            table: Arc::clone(self),
        }
    }

    /// An entry for one reply.
    pub(crate) fn one(self: &Arc<Self>) -> Pending {
        let (sender, receiver) = oneshot::channel();
        Pending {
            entry: self.enter(Waiter::One(sender)),
            receiver,
        }
    }

    /// An entry for several replies, of which no more than `most` are kept until they are read.
    pub(crate) fn several(self: &Arc<Self>, most: usize) -> Several {
        let (sender, receiver) = mpsc::channel(most.max(1));
        Several {
            entry: self.enter(Waiter::Several(sender)),
            receiver,
        }
    }

    /// Hands a reply over whose subject ends in `number`. A late one finds no entry, and a stray one no number: neither is
    /// anybody's.
    pub(crate) fn deliver(&self, number: Option<&str>, message: Message) {
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            return;
        };
        let mut waiting = self.lock();
        match waiting.get(&number) {
            None => {}
            Some(Waiter::Several(sender)) => drop(sender.try_send(message)),
            Some(Waiter::One(_)) => {
                if let Some(Waiter::One(sender)) = waiting.remove(&number) {
                    drop(waiting);
                    let _ = sender.send(message);
                }
            }
        }
    }

    /// Tells all who wait that nothing will come.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.lock().remove(&self.number);
    }
}

impl Pending {
    /// What its reply subject ends in.
    pub(crate) fn number(&self) -> u64 {
        self.entry.number
    }

    /// The reply; `None` when the connection was closed.
    pub(crate) async fn reply(&mut self) -> Option<Message> {
        (&mut self.receiver).await.ok()
    }
}

impl Several {
    /// What their reply subject ends in.
    pub(crate) fn number(&self) -> u64 {
        self.entry.number
    }

    /// The next reply; `None` when the connection was closed.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        self.receiver.recv().await
    }
}
