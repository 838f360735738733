//! Where in the stream the chunk is that holds a byte of an object.
//!
//! Chunks that this crate wrote are of one size and say their index, so that two looks are enough. Others' may be of any
//! sizes: theirs are added up, without fetching the bytes.

use super::super::consumer::Start;
use super::super::error::StoreError;
use super::super::stream::Stream;
use super::info::ObjectInfo;
use super::resume::{Stub, stubs};

/// A byte's place.
pub(super) struct Place {
    /// The chunk's sequence in the stream.
    pub(super) sequence: u64,
    /// How many bytes of the chunk come before it.
    pub(super) skip: u64,
}

/// The place of the byte at this offset, which the object has; `None` where a chunk is missing.
pub(super) async fn locate(
    stream: &Stream,
    info: &ObjectInfo,
    offset: u64,
) -> Result<Option<Place>, StoreError> {
    let mut all = stubs(stream, &info.nuid, Start::All).await?;
    let Some(mut stub) = all.next().await? else {
        return Ok(None);
    };
    let size = info.chunk_size.unwrap_or(0);
    if size > 0 && index(&stub, info) == Some(0) {
        let wanted = offset / size;
        if let Some(sequence) = jump(stream, info, &stub, wanted).await? {
            let skip = offset % size;
            return Ok(Some(Place { sequence, skip }));
        }
    }
    let mut position = 0;
    loop {
        let end = position + stub.size();
        if offset < end {
            return Ok(Some(Place {
                sequence: stub.stored.sequence,
                skip: offset - position,
            }));
        }
        position = end;
        match all.next().await? {
            Some(next) => stub = next,
            None => return Ok(None),
        }
    }
}

/// The sequence of the chunk with this index. It cannot come earlier than if the chunks stood side by side.
async fn jump(
    stream: &Stream,
    info: &ObjectInfo,
    first: &Stub,
    wanted: u64,
) -> Result<Option<u64>, StoreError> {
    let sequence = first.stored.sequence;
    if wanted == 0 {
        return Ok(Some(sequence));
    }
    let mut stubs = stubs(stream, &info.nuid, Start::From(sequence + wanted)).await?;
    while let Some(stub) = stubs.next().await? {
        match index(&stub, info) {
            Some(index) if index < wanted => {}
            Some(index) if index == wanted => return Ok(Some(stub.stored.sequence)),
            _ => break,
        }
    }
    Ok(None)
}

/// The index of a chunk that this crate wrote: its message id is `<nuid>-<index>-<attempt>`.
fn index(stub: &Stub, info: &ObjectInfo) -> Option<u64> {
    let id = stub.header("Nats-Msg-Id")?.strip_prefix(&*info.nuid)?;
    let (index, _) = id.strip_prefix('-')?.split_once('-')?;
    index.parse().ok()
}
