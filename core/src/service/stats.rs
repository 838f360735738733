//! What an endpoint counts: ADR-32's figures, kept without a lock on the way of a request.

use super::cache::CacheStats;
use crate::streaming::Counters;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The counters of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    requests: AtomicU64,
    errors: AtomicU64,
    nanoseconds: AtomicU64,
    forged: AtomicU64,
    shed: AtomicU64,
    last_error: Mutex<String>,
    pub(crate) cache: CacheStats,
    /// Of an endpoint that streams.
    pub(crate) streams: Arc<Counters>,
}

/// One reading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// Requests answered, well or badly, and notifications handled.
    pub(crate) requests: u64,
    /// Those of them that failed.
    pub(crate) errors: u64,
    /// Time from the receipt of a request to its end, summed.
    pub(crate) processing: Duration,
    /// Requests dropped because of their reply subject.
    pub(crate) forged: u64,
    /// Requests refused because too many were there.
    pub(crate) shed: u64,
    /// `<number>:<message>`, as the other languages' frameworks write it.
    pub(crate) last_error: String,
}

impl Stats {
    pub(crate) fn succeeded(&self, took: Duration) {
        self.requests.fetch_add(1, Relaxed);
        self.add(took);
    }

    pub(crate) fn failed(&self, took: Duration, error: &crate::Error) {
        self.requests.fetch_add(1, Relaxed);
        self.errors.fetch_add(1, Relaxed);
        self.add(took);
        let text = format!("{}:{}", error.code().number(), error.message());
        *self.last_error.lock().unwrap_or_else(|e| e.into_inner()) = text;
    }

    pub(crate) fn shed(&self, took: Duration, error: &crate::Error) {
        self.shed.fetch_add(1, Relaxed);
        self.failed(took, error);
    }

    /// Counts a dropped request, and says the how-manieth it is.
    pub(crate) fn forged(&self) -> u64 {
        self.forged.fetch_add(1, Relaxed) + 1
    }

    fn add(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    pub(crate) fn read(&self) -> Reading {
        Reading {
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            processing: Duration::from_nanos(self.nanoseconds.load(Relaxed)),
            forged: self.forged.load(Relaxed),
            shed: self.shed.load(Relaxed),
            last_error: self
                .last_error
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .clone(),
        }
    }
}
