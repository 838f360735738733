//! Chunks that nothing refers to: what a killed process, an abandoned upload or an older client left behind.

use super::super::error::StoreError;
use super::super::stream::Stream;
use super::commit::replicated;
use super::info::chunk_subject;
use super::resume::all_metadata;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

/// What a sweep removed.
///
/// ```
/// # async fn example(files: nats_service::ObjectStore<()>) -> Result<(), nats_service::StoreError> {
/// let removed = files.remove_orphans(std::time::Duration::from_secs(24 * 60 * 60)).await?;
/// println!("{} uploads that came to nothing, in {} chunks", removed.uploads, removed.chunks);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemovedOrphans {
    /// Uploads that never came to their end.
    pub uploads: u64,
    /// The chunks that they had stored.
    pub chunks: u64,
}

/// What a replica that lags may not have yet, is newer than that.
const LAG: Duration = Duration::from_secs(60);

/// The age from which on something may be removed: what refers to it might be on its way to the replica that is read.
pub(super) async fn old_enough(stream: &Stream, older_than: Duration) -> Duration {
    if replicated(stream).await {
        older_than.max(LAG)
    } else {
        older_than
    }
}

/// Removes the chunks of uploads that stored nothing for so long and have no metadata.
pub(super) async fn remove(
    stream: &Stream,
    older_than: Duration,
) -> Result<RemovedOrphans, StoreError> {
    let older_than = old_enough(stream, older_than).await;
    // First the chunks, then the metadata: an upload that ends in between is not taken for an orphan.
    let (chunks, _) = stream
        .subjects(&chunk_subject(stream.bucket(), "*"))
        .await?;
    let mut referred = HashSet::new();
    let mut all = all_metadata(stream).await?;
    while let Some(info) = all.next().await? {
        if !info.deleted {
            referred.insert(chunk_subject(stream.bucket(), &info.nuid));
        }
    }
    let mut removed = RemovedOrphans::default();
    for (subject, count) in chunks {
        if referred.contains(&subject) {
            continue;
        }
        let Some(last) = stream.last(&subject).await? else {
            continue;
        };
        let age = SystemTime::now().duration_since(last.created);
        if age.unwrap_or_default() < older_than {
            continue;
        }
        stream.purge(&subject).await?;
        removed.uploads += 1;
        removed.chunks += count;
    }
    Ok(removed)
}
