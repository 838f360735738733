//! When the server was heard last, for those who ask while somebody else listens.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A reader's contact with the server.
#[derive(Debug)]
pub(crate) struct Contact {
    /// In milliseconds since [`epoch`].
    heard: AtomicU64,
    open: AtomicBool,
}

/// Some moment before any contact: an [`Instant`] has no number of its own.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn since_epoch(at: Instant) -> u64 {
    let since = at.saturating_duration_since(epoch()).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}

impl Default for Contact {
    /// There is none yet; its age counts from now.
    fn default() -> Self {
        Self {
            heard: AtomicU64::new(since_epoch(Instant::now())),
            open: AtomicBool::new(false),
        }
    }
}

impl Contact {
    /// A message or a heartbeat came.
    pub(super) fn heard(&self, at: Instant) {
        self.heard.store(since_epoch(at), Ordering::Relaxed);
    }

    /// The server delivers from now on.
    pub(super) fn opened(&self) {
        self.open.store(true, Ordering::Relaxed);
        self.heard(Instant::now());
    }

    pub(super) fn closed(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    /// Whether the server delivers, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// How long ago the server was heard.
    pub(crate) fn age(&self) -> Duration {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        epoch().elapsed().saturating_sub(heard)
    }
}
