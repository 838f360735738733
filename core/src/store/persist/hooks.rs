//! Whom a writer tells of what has become of writes. It says nothing of those that a cache makes: nobody was promised them.

use super::failure::FailureHook;
use super::{Job, WriteAction};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// An answer that is stored, or a key that was evicted: the server has acknowledged it.
///
/// Given to the hook of `Server::on_stored_write`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredWrite {
    /// The bucket.
    pub bucket: Arc<str>,
    /// The key, or the object's name.
    pub key: String,
    /// The revision of the entry, or of the mark of its deletion; `None` of an object.
    pub revision: Option<u64>,
    /// The key or the object was deleted.
    pub deleted: bool,
}

type StoredHook = Arc<dyn Fn(&StoredWrite) + Send + Sync>;

/// The hooks of a set of writers.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    /// Is called with every answer that is not stored.
    pub(crate) failed: Option<FailureHook>,
    /// Is called with every one that is.
    pub(crate) stored: Option<StoredHook>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

impl From<Option<FailureHook>> for Hooks {
    fn from(failed: Option<FailureHook>) -> Self {
        Self {
            failed,
            stored: None,
        }
    }
}

impl Hooks {
    /// Tells of a write that was acknowledged, by key, revision and whether it was a deletion.
    pub(super) fn stored(
        &self,
        bucket: &Arc<str>,
        what: impl FnOnce() -> (String, Option<u64>, bool),
    ) {
        let Some(hook) = &self.stored else { return };
        let (key, revision, deleted) = what();
        let stored = StoredWrite {
            bucket: Arc::clone(bucket),
            key,
            revision,
            deleted,
        };
        call(bucket, || hook(&stored));
    }

    /// The same, of a writer's job.
    pub(super) fn written(&self, bucket: &Arc<str>, job: &Job, revision: Option<u64>) {
        let deleted = match job.write.action {
            WriteAction::Put(_) => false,
            WriteAction::Delete => true,
            WriteAction::PutIf(_) => return,
        };
        self.stored(bucket, || (job.write.key.clone(), revision, deleted));
    }
}

/// Calls the user's code: its panic must not take the writer, and all that waits in it, along.
pub(super) fn call(bucket: &str, hook: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(hook)).is_err() {
        tracing::error!(bucket, "a hook of the writer panicked");
    }
}
