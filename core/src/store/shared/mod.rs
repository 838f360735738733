//! Many readers of one stream, and one consumer: the changes of a bucket for whoever watches it in this process.
//!
//! All readers on one connection (and in one runtime) that want payloads share a consumer, and all that do not another, which delivers what any of them wants; each gets
//! what its own filters match. A reader begins with a consumer of its own, which brings it what is there, and gives that up
//! as soon as the shared one has nothing that it lacks, so joining neither misses nor repeats anything; the first one's own
//! becomes the shared one. A reader that was left behind begins so again: nobody waits for it, its queue is bounded, and
//! nothing is kept for it on the server while nobody polls it. One that has nothing to be brought, because nothing is there or
//! none of it is wanted, joins at once. What the messages mean is not known here.

mod hub;
mod members;
mod registry;
mod slot;
mod task;

pub(crate) use slot::Item;

use super::consumer::{Contact, OrderedConsumer, Start};
use super::error::StoreError;
use super::stream::Stream;
use futures_util::Stream as Readable;
use slot::{Slot, Taken};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use task::{Reader, Task};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// What a reader is to be brought.
#[derive(Debug, Clone)]
pub(crate) struct Wants {
    pub(crate) filters: Vec<String>,
    /// And no payloads: such readers share a consumer of their own.
    pub(crate) headers_only: bool,
}

/// One reader's messages, as a stream; see the module.
#[derive(Debug)]
pub(crate) struct Feed {
    reader: Arc<Reader>,
    /// What fills the queue while the shared consumer does not.
    task: Option<JoinHandle<()>>,
    runtime: Handle,
}

impl Feed {
    /// Begins to read; what goes wrong here is an error at once.
    pub(crate) async fn open(
        stream: Stream,
        wants: Wants,
        start: Start,
    ) -> Result<Self, StoreError> {
        let info = stream.info().await?;
        let runtime = Handle::current();
        if let Some(reader) = Reader::joined(&stream, &info, &wants, start) {
            return Ok(Self {
                reader: Arc::new(reader),
                task: None,
                runtime,
            });
        }
        let options = hub::options(wants.clone(), start);
        let consumer = OrderedConsumer::begin(stream, options, info)
            .await?
            .starting_over();
        let slot = Slot::new(consumer.contact().clone());
        let reader = Arc::new(Reader::new(Arc::new(slot), wants));
        Ok(Self {
            task: Some(runtime.spawn(Task::new(reader.clone(), consumer).run())),
            reader,
            runtime,
        })
    }

    /// When the server was heard last.
    pub(crate) fn contact(&self) -> Arc<Contact> {
        self.reader.slot.contact()
    }

    /// The same, for somebody else to ask.
    #[cfg(feature = "view")]
    pub(crate) fn line(&self) -> Line {
        Line(self.reader.slot.clone())
    }
}

/// How the server is heard by a reader, whoever fills its queue.
#[cfg(feature = "view")]
#[derive(Debug)]
pub(crate) struct Line(Arc<Slot>);

#[cfg(feature = "view")]
impl Line {
    pub(crate) fn contact(&self) -> Arc<Contact> {
        self.0.contact()
    }
}

impl Readable for Feed {
    type Item = Result<Item, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.reader.slot.poll_take(cx)) {
                Taken::Item(item) => return Poll::Ready(Some(Ok(item))),
                Taken::Parked(consumer) => {
                    // The runtime that it was opened in may have ended meanwhile.
                    let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
                    let task = Task::new(self.reader.clone(), *consumer);
                    self.task = Some(runtime.spawn(task.run()));
                }
                Taken::End(error) => return Poll::Ready(error.map(Err)),
            }
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.reader.leave();
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
