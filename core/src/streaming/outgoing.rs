//! What was sent and what may be: numbers, credit, and the frames that the peer has not acknowledged.

use crate::wire::error::Error;
use crate::wire::frame::{Amount, Batch, Head, Kind, MOST};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A frame, as it is sent, and sent again.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) head: Head,
    pub(crate) body: Bytes,
    /// What an `error` frame says.
    pub(crate) error: Option<Box<Error>>,
}

impl Sent {
    fn amount(&self) -> Amount {
        let items = match self.head.kind {
            Kind::Items => self.head.count.unwrap_or(1),
            _ => return Amount::default(),
        };
        let bytes = self.body.len() as u64;
        Amount { items, bytes }
    }
}

#[derive(Debug)]
pub(super) struct Outgoing {
    /// From the first that is not acknowledged on.
    kept: VecDeque<Sent>,
    kept_amount: Amount,
    last: u64,
    total: Amount,
    /// What the peer takes, in all.
    allowed: Amount,
    ended: bool,
    /// When frames were last sent again.
    repeated: Option<Instant>,
}

impl Outgoing {
    /// The peer takes this much for a start.
    pub(super) fn new(allowed: Amount) -> Self {
        Self {
            kept: VecDeque::new(),
            kept_amount: Amount::default(),
            last: 0,
            total: Amount::default(),
            allowed,
            ended: false,
            repeated: None,
        }
    }

    /// Whether another item may join the batch. The last one may exceed the bytes: what is larger than the window would
    /// otherwise never get through.
    pub(super) fn takes(&self, batch: &Batch) -> bool {
        let room = self.allowed.minus(self.total);
        let room = room.min(MOST.minus(self.kept_amount));
        let batch = Amount {
            items: batch.len() as u64,
            bytes: batch.bytes() as u64,
        };
        room.minus(batch).is_some()
    }

    pub(super) fn push(
        &mut self,
        kind: Kind,
        count: Option<u64>,
        body: Bytes,
        error: Option<Box<Error>>,
    ) -> &Sent {
        self.last += 1;
        self.ended |= kind != Kind::Items;
        let head = Head {
            seq: self.last,
            count,
            ..Head::new(kind)
        };
        let sent = Sent { head, body, error };
        let amount = sent.amount();
        self.total = self.total.plus(amount);
        self.kept_amount = self.kept_amount.plus(amount);
        self.kept.push_back(sent);
        &self.kept[self.kept.len() - 1]
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The last frame was sent.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The peer has everything.
    pub(super) fn delivered(&self) -> bool {
        self.ended && self.kept.is_empty()
    }

    /// What the peer says has come and may come. Says whether to send the kept frames again: asked for, and not just done.
    pub(super) fn heard(&mut self, state: &Head, now: Instant, pause: Duration) -> bool {
        if state.ack > self.last {
            return false;
        }
        while let Some(first) = self.kept.front()
            && first.head.seq <= state.ack
        {
            let amount = first.amount();
            self.kept_amount = self.kept_amount.minus(amount);
            self.kept.pop_front();
        }
        self.allowed = self.allowed.max(state.allowed);
        let rested = self.repeated.is_none_or(|last| now - last >= pause);
        let repeat = state.resend && !self.kept.is_empty() && rested;
        if repeat {
            self.repeated = Some(now);
        }
        repeat
    }

    pub(super) fn kept(&self) -> impl Iterator<Item = &Sent> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(10);

    fn window(items: u64, bytes: u64) -> Amount {
        Amount { items, bytes }
    }

    fn state(ack: u64, allowed: Amount, resend: bool) -> Head {
        Head {
            ack,
            allowed,
            resend,
            ..Head::new(Kind::State)
        }
    }

    fn send(out: &mut Outgoing, items: &[&'static str]) {
        let mut batch = Batch::default();
        for item in items {
            assert!(out.takes(&batch), "{item}");
            batch.push(Bytes::from_static(item.as_bytes()));
        }
        let (count, body) = batch.take();
        out.push(Kind::Items, count, body, None);
    }

    #[test]
    fn no_more_is_sent_than_is_allowed_and_the_last_item_may_exceed_the_bytes() {
        let mut out = Outgoing::new(window(3, 99));
        send(&mut out, &["a", "b"]);
        let mut batch = Batch::default();
        assert!(out.takes(&batch));
        batch.push(Bytes::from_static(b"c"));
        assert!(!out.takes(&batch), "three items");
        let mut out = Outgoing::new(window(9, 4));
        send(&mut out, &["longer than the window"]);
        assert!(!out.takes(&Batch::default()));
        out.heard(&state(1, window(9, 30), false), Instant::now(), PAUSE);
        assert!(out.takes(&Batch::default()));
        // An older word that comes late takes nothing back.
        out.heard(&state(0, window(1, 1), false), Instant::now(), PAUSE);
        assert!(out.takes(&Batch::default()));
    }

    #[test]
    fn what_is_not_acknowledged_is_kept_and_sent_again_when_it_is_asked_for() {
        let mut out = Outgoing::new(window(99, 99));
        for item in ["a", "b", "c"] {
            send(&mut out, &[item]);
        }
        out.push(Kind::End, None, Bytes::new(), None);
        let now = Instant::now();
        assert!(!out.heard(&state(1, window(99, 99), false), now, PAUSE));
        assert!(out.heard(&state(1, window(99, 99), true), now, PAUSE));
        let kept: Vec<_> = out.kept().map(|sent| sent.head.seq).collect();
        assert_eq!(kept, [2, 3, 4]);
        // Whoever asks without a pause is not answered each time: one small message would bring many large ones.
        assert!(!out.heard(&state(1, window(99, 99), true), now, PAUSE));
        assert!(out.heard(&state(2, window(99, 99), true), now + PAUSE, PAUSE));
        assert!(!out.delivered());
        out.heard(&state(4, window(99, 99), false), now, PAUSE);
        assert!(out.delivered());
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_counts_for_nothing() {
        let mut out = Outgoing::new(window(1, 9));
        send(&mut out, &["a"]);
        out.heard(&state(2, window(9, 9), false), Instant::now(), PAUSE);
        assert_eq!(out.kept().count(), 1);
        assert!(!out.takes(&Batch::default()));
    }

    #[test]
    fn what_is_kept_is_bounded_whatever_the_peer_would_take() {
        let mut out = Outgoing::new(window(u64::MAX, u64::MAX));
        let large = "x".repeat(1 << 20).leak();
        while out.takes(&Batch::default()) {
            send(&mut out, &[large]);
        }
        assert_eq!(out.kept().count(), 8);
    }
}
