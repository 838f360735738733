//! What the tests of object stores share: a bucket, bytes, and readers that behave badly.

use crate::Nats;
use bytes::Bytes;
use nats_service::ObjectStore;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::sync::watch;

/// The size of a chunk.
pub const CHUNK: usize = 127 * 1024;

/// The bucket `o`.
pub async fn bucket<T>(nats: &Nats) -> ObjectStore<T> {
    nats.object_bucket("o").await;
    ObjectStore::bind(nats.js.clone(), "o").expect("a store")
}

/// How many chunks there are in the bucket `o`.
pub async fn chunks(nats: &Nats) -> usize {
    nats.messages("OBJ_o", "$O.o.C.>").await
}

/// Bytes that differ from chunk to chunk.
#[must_use]
pub fn pattern(size: usize) -> Bytes {
    let bytes = (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8);
    bytes.collect()
}

/// A reader that gives its bytes in small pieces, and those after a certain one only when it is told to.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    /// How many are given without waiting.
    free: usize,
    release: Pin<Box<dyn Release>>,
}

trait Release: Future<Output = ()> + Send {}
impl<F: Future<Output = ()> + Send> Release for F {}

impl std::fmt::Debug for dyn Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Release")
    }
}

/// Lets a [`Held`] go on.
#[derive(Debug)]
pub struct Holder(watch::Sender<bool>);

impl Holder {
    /// Lets it go on.
    pub fn release(self) {
        self.0.send_replace(true);
    }
}

/// A reader that stops after `free` bytes, until it is released; for ever, when its holder is dropped without that.
#[must_use]
pub fn held(bytes: Bytes, free: usize) -> (Held, Holder) {
    let (sender, mut receiver) = watch::channel(false);
    let release = Box::pin(async move {
        if receiver.wait_for(|released| *released).await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    let held = Held {
        bytes,
        free,
        release,
    };
    (held, Holder(sender))
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.free == 0 {
            if self.release.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.free = usize::MAX;
            self.release = Box::pin(std::future::pending());
        }
        let piece = buffer.remaining().min(self.free).min(8 * 1024);
        let piece = piece.min(self.bytes.len());
        buffer.put_slice(&self.bytes.split_to(piece));
        self.free -= piece;
        Poll::Ready(Ok(()))
    }
}

/// A reader of these bytes that fails after the first `size` of them.
pub fn failing(bytes: &[u8], size: usize) -> impl AsyncRead + Send + Unpin {
    bytes[..size].chain(Broken)
}

struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other("the disk is gone")))
    }
}
