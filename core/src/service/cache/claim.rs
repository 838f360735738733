//! One flight among all instances: a claim in the bucket, under the key itself.
//!
//! A claim is a conditional write of a marker. Whoever wins it calls the handler, renews the claim while the handler runs, and
//! replaces it by the answer; the others look again and again, for a bounded time. A holder that dies renews nothing, and its claim
//! is taken over after its lease. Nothing of this is needed for an old value not to come back: the write of the answer is
//! conditional on the claim, so a clock that is wrong, or a claim that is taken over too early, costs a handler call and no more.

use super::entry::{self, Held, Seen, Value, age};
use super::{Answered, Cache, Judged, Lead, Revive, Stale};
use crate::wire::codec::Codec;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks of one that waits.
const FIRST_POLL: Duration = Duration::from_millis(10);
const LAST_POLL: Duration = Duration::from_millis(100);

/// How an entry is read.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    pub(super) wanted: Codec,
    pub(super) revive: Revive,
}

/// A claim that is held. Dropped, it is given up, so that nobody waits for its lease.
#[derive(Debug)]
pub(super) struct Claim {
    cache: Arc<Cache>,
    key: Arc<str>,
    pub(super) revision: u64,
    carried: Option<Value>,
    held: bool,
}

impl Claim {
    /// The answer takes its place.
    pub(super) fn redeem(mut self) -> u64 {
        self.held = false;
        self.revision
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        let Some(room) = self.cache.room() else {
            return;
        };
        let free = entry::claim(self.revision, true, self.carried.as_ref());
        let codec = codec_of(&self.cache, self.carried.as_ref());
        let write = self.cache.write(&self.key, free, codec);
        let until = Instant::now() + self.cache.lease;
        self.cache.writer.offer(write, room, until.into());
    }
}

/// What came of asking for a claim.
enum Asked {
    Won(u64),
    /// Somebody was faster.
    Lost,
    /// The bucket does not answer.
    Nothing,
}

impl Lead {
    /// Claims the key, or waits for who has; an answer, where one comes of that. Afterwards `revision` is what a write is
    /// conditional on.
    pub(super) async fn claim(
        &mut self,
        mut seen: Seen,
        reading: Reading,
        deadline: Instant,
    ) -> Option<Answered> {
        let cache = Arc::clone(&self.cache);
        let begun = Instant::now();
        // The other half of the time belongs to the handler of those that wait in vain.
        let until = begun + deadline.saturating_duration_since(begun) / 2;
        let mut pause = FIRST_POLL;
        let mut watched = (seen.revision, begun);
        loop {
            if watched.0 != seen.revision {
                watched = (seen.revision, Instant::now());
            }
            let (revision, carried, taken) = match seen.held {
                Held::Claim {
                    free,
                    carried,
                    renewed,
                } => {
                    // By our own watch, or well past it by the clocks of two hosts.
                    let dead =
                        watched.1.elapsed() >= cache.lease || age(renewed) >= 2 * cache.lease;
                    (seen.revision, carried, !free && !dead)
                }
                Held::Value(value) if cache.spec.stale.is_some() => {
                    (seen.revision, Some(value), false)
                }
                _ => (seen.revision, None, false),
            };
            self.revision = Some(revision);
            if !taken {
                match self.ask(revision, carried).await {
                    Asked::Won(_) => return None,
                    Asked::Nothing => {
                        // Whether the claim stands is not known, so nothing is written.
                        self.revision = None;
                        return None;
                    }
                    Asked::Lost => {}
                }
            }
            if Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_POLL);
            self.looked = Instant::now();
            let Some(next) = cache.read(&self.key).await else {
                self.revision = None;
                return None;
            };
            seen = next;
            match cache.judge(&self.key, Some(&seen), reading.wanted, reading.revive) {
                Judged::Answer(answered) => return Some(answered),
                Judged::Missing(stale) => self.fall_back_on(stale),
            }
        }
    }

    fn fall_back_on(&mut self, stale: Option<Stale>) {
        if stale.is_some() {
            self.stale = stale;
        }
    }

    async fn ask(&mut self, expected: u64, carried: Option<Value>) -> Asked {
        let looked = Instant::now();
        let asked = send(&self.cache, &self.key, expected, carried.as_ref()).await;
        if let Asked::Won(revision) = asked {
            self.flight.also(revision);
            self.looked = looked;
            self.revision = Some(revision);
            self.claim = Some(Claim {
                cache: Arc::clone(&self.cache),
                key: Arc::clone(&self.key),
                revision,
                carried,
                held: true,
            });
        }
        asked
    }

    /// Renews the claim for as long as it is polled. Never ends.
    pub(super) async fn keep_claim(&mut self) {
        while let Some(claim) = &mut self.claim {
            let cache = Arc::clone(&self.cache);
            tokio::time::sleep(cache.lease / 3).await;
            let looked = Instant::now();
            match send(&cache, &self.key, claim.revision, claim.carried.as_ref()).await {
                Asked::Won(revision) => {
                    claim.revision = revision;
                    self.flight.also(revision);
                    (self.revision, self.looked) = (Some(revision), looked);
                }
                Asked::Lost => {
                    // Evicted, or taken over: what comes of this call is its own, and is not stored.
                    claim.held = false;
                    self.claim = None;
                    self.revision = None;
                }
                Asked::Nothing => {}
            }
        }
        std::future::pending().await
    }
}

async fn send(cache: &Cache, key: &str, expected: u64, carried: Option<&Value>) -> Asked {
    let Some(room) = cache.room() else {
        return Asked::Nothing;
    };
    let codec = codec_of(cache, carried);
    let write = cache.write(key, entry::claim(expected, false, carried), codec);
    let until = Instant::now() + cache.spec.lookup_timeout;
    let written = cache.writer.submit_and_wait(write, room, until.into());
    match written.await {
        Ok(revision) => Asked::Won(revision),
        Err(error) if error.is_conflict() => Asked::Lost,
        Err(_) => Asked::Nothing,
    }
}

fn codec_of(cache: &Cache, carried: Option<&Value>) -> Codec {
    carried.map_or(cache.method.codec, |value| value.codec)
}
