//! What has come in order and what is missing, and when the peer is to hear of it.

use super::ACKNOWLEDGE;
use crate::wire::frame::{Amount, Head, Kind};
use std::time::{Duration, Instant};

/// What to make of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is the next.
    Next,
    /// It has come before.
    Again,
    /// One before it has not come.
    Early,
}

/// Frames are missing.
#[derive(Debug, Clone, Copy)]
struct Gap {
    since: Instant,
    asked: Instant,
}

#[derive(Debug)]
pub(super) struct Incoming {
    /// The last frame that came in order.
    last: u64,
    /// How far the peer may be ahead of the reader.
    window: Amount,
    /// What the peer was told that it may send, in all.
    allowed: Amount,
    total: Amount,
    /// What has come since the peer was last told.
    untold: Amount,
    gap: Option<Gap>,
    ended: bool,
}

impl Incoming {
    pub(super) fn new(window: Amount) -> Self {
        Self {
            last: 0,
            window,
            allowed: window,
            total: Amount::default(),
            untold: Amount::default(),
            gap: None,
            ended: false,
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn see(&mut self, head: &Head) -> Seen {
        if head.seq <= self.last || self.ended {
            return Seen::Again;
        }
        if head.seq > self.last + 1 {
            return Seen::Early;
        }
        self.last = head.seq;
        self.gap = None;
        self.ended = head.kind != Kind::Items;
        Seen::Next
    }

    /// Counts what was in a frame; false where the peer was not allowed so much.
    pub(super) fn count(&mut self, items: usize, bytes: usize) -> bool {
        // Only the last item may exceed the bytes, so there was room for some before it.
        let within = self.total.bytes < self.allowed.bytes || items == 0;
        let amount = Amount {
            items: items as u64,
            bytes: bytes as u64,
        };
        self.total = self.total.plus(amount);
        self.untold = self.untold.plus(amount);
        within && self.total.items <= self.allowed.items
    }

    /// Something is missing. Says whether to ask for it: at once, and then after a pause each time.
    pub(super) fn miss(&mut self, now: Instant, pause: Duration) -> bool {
        match &mut self.gap {
            None => {
                self.gap = Some(Gap {
                    since: now,
                    asked: now,
                });
                true
            }
            Some(gap) if now - gap.asked >= pause => {
                gap.asked = now;
                true
            }
            Some(_) => false,
        }
    }

    /// For how long something has been missing.
    pub(super) fn missing_for(&self, now: Instant) -> Option<Duration> {
        self.gap.map(|gap| now - gap.since)
    }

    /// So much was read, in all: whether the peer should hear of it, or of what has come.
    pub(super) fn due(&self, read: Amount) -> bool {
        let news = read.plus(self.window).minus(self.allowed);
        let half = self.window.half();
        let (untold, enough) = (self.untold, ACKNOWLEDGE);
        let read = half.is_some() && (news.items >= half.items || news.bytes >= half.bytes);
        read || untold.items >= enough.items || untold.bytes >= enough.bytes
    }

    /// What to say now.
    pub(super) fn tell(&mut self, read: Amount) -> Head {
        self.allowed = self.allowed.max(read.plus(self.window));
        self.untold = Amount::default();
        Head {
            ack: self.last,
            allowed: self.allowed,
            ..Head::new(Kind::State)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(seq: u64) -> Head {
        Head {
            seq,
            ..Head::new(Kind::Items)
        }
    }

    fn incoming() -> Incoming {
        Incoming::new(Amount {
            items: 10,
            bytes: 100,
        })
    }

    #[test]
    fn a_gap_is_asked_for_at_once_and_then_with_pauses_until_it_is_closed() {
        let (mut inc, now, pause) = (incoming(), Instant::now(), Duration::from_millis(10));
        assert_eq!(inc.see(&items(1)), Seen::Next);
        assert_eq!(inc.see(&items(3)), Seen::Early);
        assert!(inc.miss(now, pause));
        assert!(!inc.miss(now, pause));
        assert!(inc.miss(now + pause, pause));
        assert_eq!(inc.missing_for(now + pause), Some(pause));
        assert_eq!(inc.see(&items(1)), Seen::Again);
        assert_eq!(inc.see(&items(2)), Seen::Next);
        assert_eq!(inc.missing_for(now), None);
        assert_eq!(inc.see(&items(3)), Seen::Next);
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let mut inc = incoming();
        let end = Head {
            seq: 1,
            ..Head::new(Kind::End)
        };
        assert_eq!(inc.see(&end), Seen::Next);
        assert_eq!(inc.see(&items(2)), Seen::Again);
    }

    #[test]
    fn a_peer_that_sends_more_than_it_may_is_found_out() {
        let mut inc = incoming();
        assert!(inc.count(9, 99));
        assert!(inc.count(1, 1_000), "the last one may exceed the bytes");
        let mut many = incoming();
        assert!(!many.count(11, 1));
        assert!(!inc.count(1, 1));
    }

    #[test]
    fn a_reader_that_has_read_half_is_told_and_one_that_reads_nothing_gives_no_credit() {
        let mut inc = incoming();
        inc.count(10, 50);
        let read = |items| Amount { items, bytes: 0 };
        assert!(!inc.due(read(4)));
        assert!(inc.due(read(5)));
        assert_eq!(inc.tell(read(0)).allowed.items, 10);
        assert_eq!(inc.tell(read(5)).allowed.items, 15);
        assert!(!inc.due(read(5)));
        inc.count(0, 128 << 10);
        assert!(inc.due(read(5)), "so much is acknowledged in any case");
    }
}
