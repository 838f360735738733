//! Where the bytes of an object come from, and how they are cut.

use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes, from somewhere.
pub(super) trait Source: Send {
    /// The next bytes: exactly `size` of them, fewer at the end, none after it.
    fn next(&mut self, size: usize) -> impl Future<Output = io::Result<Bytes>> + Send;
}

impl Source for Bytes {
    async fn next(&mut self, size: usize) -> io::Result<Bytes> {
        Ok(self.split_to(size.min(self.len())))
    }
}

pub(super) struct Reader<R>(pub(super) R);

impl<R: AsyncRead + Send + Unpin> Source for Reader<R> {
    async fn next(&mut self, size: usize) -> io::Result<Bytes> {
        // A reader hands over what it has; a chunk is filled all the same. A full buffer must not be read into, since it grows.
        let mut chunk = BytesMut::with_capacity(size);
        while chunk.len() < size {
            let rest = (size - chunk.len()) as u64;
            if (&mut self.0).take(rest).read_buf(&mut chunk).await? == 0 {
                break;
            }
        }
        Ok(chunk.freeze())
    }
}
