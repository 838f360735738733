//! What is due when. Entries are never taken out early: whoever asks checks whether they still mean something.

use super::queue::Token;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use tokio::time::Instant;

/// Something that comes due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The pause before another attempt is over.
    Backoff(Token),
    /// Nobody waits for the write any longer.
    Deadline(Token),
}

#[derive(Debug)]
struct Due(Instant, u64, Alarm);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Due>>,
    count: u64,
    /// All acknowledgements have the same time: first sent is first due, and no heap is needed for the hot path.
    acks: VecDeque<(Instant, Token, u32)>,
}

impl Timers {
    pub(super) fn at(&mut self, due: Instant, alarm: Alarm) {
        self.count += 1;
        self.heap.push(Reverse(Due(due, self.count, alarm)));
    }

    pub(super) fn ack_at(&mut self, due: Instant, token: Token, attempt: u32) {
        self.acks.push_back((due, token, attempt));
    }

    /// Drops void entries from the front, and all of them when there are several times more than can be valid.
    pub(super) fn trim_acks(&mut self, window: usize, valid: impl Fn(Token, u32) -> bool) {
        while let Some((_, token, attempt)) = self.acks.front()
            && !valid(*token, *attempt)
        {
            self.acks.pop_front();
        }
        if self.acks.len() > 4 * window.max(16) {
            self.acks
                .retain(|(_, token, attempt)| valid(*token, *attempt));
        }
    }

    pub(super) fn due_ack(&mut self, now: Instant) -> Option<(Token, u32)> {
        let (due, token, attempt) = *self.acks.front()?;
        if due > now {
            return None;
        }
        self.acks.pop_front();
        Some((token, attempt))
    }

    pub(super) fn due(&mut self, now: Instant) -> Option<(Instant, Alarm)> {
        let Reverse(Due(due, ..)) = self.heap.peek()?;
        if *due > now {
            return None;
        }
        let Reverse(Due(due, _, alarm)) = self.heap.pop()?;
        Some((due, alarm))
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let ack = self.acks.front().map(|(due, ..)| *due);
        let other = self.heap.peek().map(|Reverse(Due(due, ..))| *due);
        [ack, other].into_iter().flatten().min()
    }
}
