//! Which readers share: the shared consumers of this process, each for as long as somebody reads from it.

use super::super::stream::Stream;
use super::Wants;
use super::hub::Hub;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::runtime::Handle;

/// What tells one shared consumer from another. A stream that is made anew is another one; a task must not depend on
/// another runtime than its reader's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HubKey {
    connection: usize,
    runtime: tokio::runtime::Id,
    stream: String,
    created: String,
    headers_only: bool,
}

/// A shared consumer as its readers hold it. Its stream keeps the connection's statistics, whose address stands for it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hub: Arc<Hub>,
    key: HubKey,
}

static SHARED: Mutex<Option<HashMap<HubKey, Weak<Shared>>>> = Mutex::new(None);

impl Shared {
    /// The shared consumer of this stream for such readers.
    pub(super) fn of(stream: &Stream, created: &str, wants: &Wants) -> Arc<Self> {
        let key = || HubKey {
            connection: Arc::as_ptr(stream.statistics()) as usize,
            runtime: Handle::current().id(),
            stream: stream.name().to_owned(),
            created: created.to_owned(),
            headers_only: wants.headers_only,
        };
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = shared.get_or_insert_default();
        if let Some(there) = shared.get(&key()).and_then(Weak::upgrade) {
            return there;
        }
        let new = Arc::new(Self {
            hub: Arc::new(Hub::new(stream.clone())),
            key: key(),
        });
        shared.insert(key(), Arc::downgrade(&new));
        new
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = shared.as_mut()
            && shared
                .get(&self.key)
                .is_some_and(|there| there.strong_count() == 0)
        {
            shared.remove(&self.key);
        }
    }
}
