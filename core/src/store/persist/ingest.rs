//! Fast ingest (ADR-50, nats-server 2.14): many writes in one batch, acknowledged by the hundred. What a batch knows, and what
//! an answer to it means; `kv.rs` sends and receives, `readback.rs` looks into the bucket.
//!
//! A batch is begun with a write that has a message id, and nothing is added before the server has answered to that. Whatever
//! is added later has no message id, which the server would pay for with a third of its throughput: that it is stored once comes
//! from the batch. Its messages are numbered, stored without a gap or not at all, and only as long as the server knows the
//! batch. So before any of them is sent again, the batch is ended, and either its end says how many are stored, or the server
//! does not know the batch (any more), so that no late message of it can be stored, and the bucket is asked which ones are.
//!
//! For that a write has a name in its headers. A name costs this process and the server a tenth of a write, and room in the bucket;
//! where only the last value of a key is kept, it is enough that every sixteenth has one: a last value with the right content
//! that came after the write was sent is as good as the write itself, whoever wrote it.

use super::actor::{Completion, Outcome};
use super::failure::{Ack, Fault};
use super::queue::Token;
use async_nats::Subject;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// So many writes within a moment, and more after it, are worth a batch, which costs three messages and one round trip.
const DENSE: usize = 16;
const MOMENT: Duration = Duration::from_millis(1);
/// The server is to acknowledge every so many writes.
const FLOW: u64 = 250;
/// So many acknowledgements may be outstanding.
const OUTSTANDING: u64 = 16;
/// So many writes may be on their way, in a batch or by themselves. With 1,024 the server was idle between two acknowledgements
/// (measured: a tenth slower). It queues 10,000 for a stream, those of all its writers, and refuses more.
pub(super) const WINDOW: usize = 4096;
/// Only its end acknowledges what is less than a whole flow of a batch. So it ends when nothing was added to it for so long,
const QUIET: Duration = Duration::from_millis(10);
/// or when its oldest write has waited for so long.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long an end may stay without an answer, and how long nothing is begun after a refusal.
const PAUSE: Duration = Duration::from_secs(1);
/// So long a batch may refuse to end. The server forgets one that is quiet for ten seconds.
const FORGOTTEN: Duration = Duration::from_secs(15);

/// Every so many writes of a batch one has a name, where a value can stand for it.
const NAMED: u64 = 16;

const DISABLED: u64 = 10205;
const UNKNOWN: u64 = 10208;
const TOO_MANY: u64 = 10211;

/// The place of a write in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    batch: u64,
    /// From 1.
    pub(super) sequence: u64,
    /// It is to have a name in its headers.
    pub(super) named: bool,
}

/// A write that the batch answers for, until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) sequence: u64,
    pub(super) token: Token,
    pub(super) subject: Subject,
    /// Everything up to this sequence of the stream was there before the write was sent.
    pub(super) floor: u64,
    /// By which it is known where it has no name.
    pub(super) value: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The server has not said yet that it takes the batch.
    Opening { until: Instant },
    /// Takes writes. When the last one was added, and since when nothing was acknowledged.
    Open { added: Instant, waits: Instant },
    /// Is being ended, since then; is asked for how it ended at this moment.
    Ending { since: Instant, ask: Instant },
    /// The server does not know it: the bucket has to be read.
    Lost,
    /// The bucket is read.
    Reading,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    /// What the reply subjects of all its messages have in common: `<name>-<batch>.<flow>.<gap>.`
    stem: String,
    phase: Phase,
    /// The highest sequence sent, and the highest acknowledged.
    sent: u64,
    acked: u64,
    /// The server acknowledges every so many.
    flow: u64,
    held: VecDeque<Held>,
    /// Of its first write: the end of a batch is a message too, of any subject of the bucket.
    subject: Subject,
}

/// What is to be done for a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Send its end: an empty message of this subject, with this after the inbox in its reply subject.
    End { subject: Subject, reply: String },
    /// Find out which of these are stored.
    Read(Vec<Held>),
}

/// What the bucket says of a write that is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It has this revision.
    Stored(u64),
    /// A value that cannot be told from it is the last one of its key, and came after it was sent.
    Same,
    /// It is not there.
    Absent,
    /// There is a newer value of somebody else, and the older ones are not kept: it was overwritten, or was never there.
    Overwritten,
}

/// The batches of one writer, one after the other: with two at once the server would have their first words acknowledged one by
/// one. What finds no place goes by itself.
#[derive(Debug)]
pub(super) struct Ingest {
    /// What is random in the batches' names.
    name: u64,
    enabled: bool,
    batch: Option<Batch>,
    /// How many there have been.
    count: u64,
    /// When this moment began, the writes in it that would suit a batch, and those of the one before.
    moment: Instant,
    writes: usize,
    writes_before: usize,
    not_before: Option<Instant>,
    /// The highest sequence of the stream that is known to be taken.
    floor: u64,
}

impl Ingest {
    pub(super) fn new(enabled: bool, name: u64, now: Instant) -> Self {
        Self {
            name,
            enabled,
            batch: None,
            count: 0,
            moment: now,
            writes: 0,
            writes_before: 0,
            not_before: None,
            floor: 0,
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// A sequence of the stream that is taken.
    pub(super) fn saw(&mut self, sequence: u64) {
        self.floor = self.floor.max(sequence);
    }

    /// A place for a write that is sent for the first time and that nobody waits for; none where it goes by itself. With a
    /// `value` it needs no name: that is what its key is to have in the end, and nothing else.
    pub(super) fn place(
        &mut self,
        token: Token,
        subject: &Subject,
        value: Option<&Bytes>,
        open_for: Duration,
        now: Instant,
    ) -> Option<Place> {
        if !self.enabled {
            return None;
        }
        self.count_write(now);
        let floor = self.floor;
        let held = |sequence| Held {
            sequence,
            token,
            subject: subject.clone(),
            floor,
            value: value.filter(|_| sequence % NAMED != 1).cloned(),
        };
        if let Some(batch) = &mut self.batch {
            let Phase::Open { added, waits } = &mut batch.phase else {
                return None;
            };
            if batch.sent >= batch.acked + OUTSTANDING * batch.flow {
                return None;
            }
            *added = now;
            if batch.sent == batch.acked {
                *waits = now;
            }
            batch.sent += 1;
            return Some(batch.hold(held(batch.sent)));
        }
        if self.writes_before < DENSE || self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        self.not_before = None;
        self.count += 1;
        let (name, number) = (self.name, self.count);
        let batch = self.batch.insert(Batch {
            number,
            stem: format!("{name:x}-{number}.{FLOW}.fail."),
            phase: Phase::Opening {
                until: now + open_for,
            },
            sent: 1,
            acked: 0,
            flow: 1,
            held: VecDeque::new(),
            subject: subject.clone(),
        });
        Some(batch.hold(held(1)))
    }

    fn count_write(&mut self, now: Instant) {
        let passed = now - self.moment;
        if passed >= MOMENT {
            self.writes_before = if passed < 5 * MOMENT { self.writes } else { 0 };
            (self.moment, self.writes) = (now, 0);
        }
        self.writes += 1;
    }

    /// Writes what stands in the reply subject of a place, after the inbox.
    pub(super) fn reply(&self, place: Place, to: &mut impl std::fmt::Write) -> std::fmt::Result {
        // A place is of the batch that there is.
        if let Some(batch) = &self.batch {
            to.write_str(&batch.stem)?;
        }
        write!(to, "{}", place.sequence)?;
        to.write_str(if place.begins() { ".0.$FI" } else { ".1.$FI" })
    }

    /// A write that got its place never left.
    pub(super) fn unsent(&mut self, token: Token) {
        if let Some(batch) = &mut self.batch {
            batch.held.retain(|held| held.token != token);
        }
    }

    /// A round is over. `hurry` when something waits for what is held.
    pub(super) fn round(&mut self, hurry: bool, now: Instant) {
        let Some(batch) = &mut self.batch else { return };
        match batch.phase {
            // Its one write has a message id, and is sent again by itself.
            Phase::Opening { until } if until <= now => self.batch = None,
            Phase::Lost if batch.held.is_empty() => self.batch = None,
            Phase::Open { .. } => {
                let waited_for = hurry && batch.sent > batch.acked && !batch.is_due();
                if waited_for || batch.ends_at().is_some_and(|at| at <= now) {
                    batch.end(now);
                }
            }
            _ => {}
        }
    }

    /// The connection is another one: what was sent over the last one may be lost, or late.
    pub(super) fn reconnected(&mut self, now: Instant) {
        let Some(batch) = &mut self.batch else { return };
        match &mut batch.phase {
            Phase::Opening { .. } => self.batch = None,
            Phase::Open { .. } => batch.end(now),
            Phase::Ending { ask, .. } => *ask = now,
            Phase::Lost | Phase::Reading => {}
        }
    }

    /// What is to be done now.
    pub(super) fn task(&mut self, now: Instant) -> Option<Task> {
        let batch = self.batch.as_mut()?;
        match &mut batch.phase {
            Phase::Ending { ask, .. } if *ask > now => None,
            Phase::Ending { since, ask } if now < *since + FORGOTTEN => {
                *ask = now + PAUSE;
                Some(Task::End {
                    subject: batch.subject.clone(),
                    reply: format!("{}{}.3.$FI", batch.stem, batch.sent + 1),
                })
            }
            Phase::Ending { .. } | Phase::Lost => {
                batch.phase = Phase::Reading;
                Some(Task::Read(batch.held.drain(..).collect()))
            }
            Phase::Opening { .. } | Phase::Open { .. } | Phase::Reading => None,
        }
    }

    /// When there is something to do without anything else happening.
    pub(super) fn wakeup(&self) -> Option<Instant> {
        let batch = self.batch.as_ref()?;
        match batch.phase {
            Phase::Opening { until: at } | Phase::Ending { ask: at, .. } => Some(at),
            Phase::Open { .. } => batch.ends_at(),
            Phase::Lost | Phase::Reading => None,
        }
    }

    /// Takes an answer in: `place` is its subject after the inbox.
    pub(super) fn answered(
        &mut self,
        place: &str,
        answer: Result<Ack<'_>, Fault>,
        now: Instant,
        ended: &mut Vec<Completion>,
    ) {
        let Some((number, sequence)) = parse(place, self.name) else {
            return;
        };
        // It may be a late word about one that has ended.
        let Some(batch) = self.batch.as_mut().filter(|one| one.number == number) else {
            return;
        };
        let fault = match answer {
            Ok(Ack {
                kind: Some("ack"),
                seq: Some(to),
                msgs,
                ..
            }) => {
                batch.flow = msgs.unwrap_or(1).max(1);
                match &mut batch.phase {
                    Phase::Open { waits, .. } => *waits = now,
                    Phase::Opening { .. } => {
                        let (added, waits) = (now, now);
                        batch.phase = Phase::Open { added, waits };
                    }
                    Phase::Ending { .. } | Phase::Lost | Phase::Reading => {}
                }
                batch.acknowledge(to, ended);
                return;
            }
            // The last word follows.
            Ok(Ack {
                kind: Some("gap"), ..
            }) => {
                batch.ends(now);
                return;
            }
            Ok(ack) => {
                let (kind, count) = (ack.kind, ack.count);
                match (ack.into_result(), count) {
                    // The last word: so many are stored, and none behind them will be.
                    (Ok(last), Some(count)) => {
                        batch.acknowledge(count, ended);
                        let left = batch.held.drain(..);
                        ended.extend(left.map(|held| (held.token, Outcome::Unsent)));
                        self.batch = None;
                        self.saw(last);
                        return;
                    }
                    // It was stored as if there were no batches.
                    (Ok(revision), None) => {
                        batch.settle(sequence, Outcome::Written(Some(revision)), ended);
                        self.enabled = false;
                        self.give_up(now);
                        return;
                    }
                    // A write was refused, and the last word follows.
                    (Err(fault), _) if kind.is_some() => {
                        batch.settle(sequence, Outcome::Failed(fault), ended);
                        batch.ends(now);
                        self.not_before = Some(now + PAUSE);
                        return;
                    }
                    (Err(fault), _) => fault,
                }
            }
            Err(fault) => fault,
        };
        self.refused(sequence, fault, now, ended);
    }

    fn refused(&mut self, sequence: u64, fault: Fault, now: Instant, ended: &mut Vec<Completion>) {
        let Some(batch) = &mut self.batch else { return };
        self.not_before = Some(now + PAUSE);
        match fault.code {
            DISABLED | TOO_MANY | UNKNOWN => {
                self.enabled &= fault.code != DISABLED;
                // This one is not stored, nor what came behind it; of what came before it nothing is known.
                while batch
                    .held
                    .back()
                    .is_some_and(|last| last.sequence >= sequence)
                {
                    let last = batch.held.pop_back();
                    ended.extend(last.map(|held| (held.token, Outcome::Unsent)));
                }
                batch.phase = match batch.phase {
                    Phase::Reading => Phase::Reading,
                    _ => Phase::Lost,
                };
            }
            // The end itself, which is asked for again.
            _ if sequence > batch.sent => {}
            _ => {
                batch.settle(sequence, Outcome::Failed(fault), ended);
                self.give_up(now);
            }
        }
    }

    /// Nothing more is added to the batch.
    fn give_up(&mut self, now: Instant) {
        match &mut self.batch {
            Some(batch) if !matches!(batch.phase, Phase::Opening { .. }) => batch.ends(now),
            batch => *batch = None,
        }
    }

    /// The bucket was read: what it says of each write, in the order of the batch.
    pub(super) fn found(&mut self, found: Vec<(Held, Found)>, ended: &mut Vec<Completion>) {
        self.batch = None;
        let stored = |(_, found): &&(Held, Found)| matches!(found, Found::Stored(_));
        // A batch is stored without a gap: what comes before one that is there was there. One that only looks like it
        // proves nothing.
        let last = found.iter().filter(stored).map(|(held, _)| held.sequence);
        let last = last.max().unwrap_or(0);
        ended.extend(found.into_iter().map(|(held, found)| {
            let outcome = match found {
                Found::Stored(revision) => Outcome::Written(Some(revision)),
                Found::Same => Outcome::Written(None),
                _ if held.sequence < last => Outcome::Written(None),
                Found::Absent | Found::Overwritten => Outcome::Unsent,
            };
            (held.token, outcome)
        }));
    }
}

impl Place {
    /// Whether it is the first of its batch.
    pub(super) fn begins(self) -> bool {
        self.sequence == 1
    }
}

impl Batch {
    fn hold(&mut self, held: Held) -> Place {
        let place = Place {
            batch: self.number,
            sequence: held.sequence,
            named: held.value.is_none(),
        };
        self.held.push_back(held);
        place
    }

    /// Whether an acknowledgement comes without another write.
    fn is_due(&self) -> bool {
        self.sent >= self.acked + self.flow
    }

    /// When it is to be ended, if it is open and nothing happens.
    fn ends_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { waits, .. } if self.is_due() => Some(waits + PAUSE),
            Phase::Open { added, waits } => Some((added + QUIET).min(waits + PATIENCE)),
            _ => None,
        }
    }

    /// Everything up to this sequence is stored.
    fn acknowledge(&mut self, to: u64, ended: &mut Vec<Completion>) {
        self.acked = self.acked.max(to);
        while self.held.front().is_some_and(|held| held.sequence <= to) {
            let held = self.held.pop_front();
            ended.extend(held.map(|held| (held.token, Outcome::Written(None))));
        }
    }

    /// One has ended by itself.
    fn settle(&mut self, sequence: u64, outcome: Outcome, ended: &mut Vec<Completion>) {
        if let Some(at) = self.held.iter().position(|held| held.sequence == sequence)
            && let Some(held) = self.held.remove(at)
        {
            ended.push((held.token, outcome));
        }
    }

    /// It is to be ended, now.
    fn end(&mut self, now: Instant) {
        self.phase = Phase::Ending {
            since: now,
            ask: now,
        };
    }

    /// The server ends it by itself; it is asked for in a moment, should its word not come.
    fn ends(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Open { .. }) {
            self.phase = Phase::Ending {
                since: now,
                ask: now + QUIET,
            };
        }
    }
}

/// Reads `<name>-<batch>.<flow>.<gap>.<sequence>.<operation>.$FI`.
fn parse(place: &str, name: u64) -> Option<(u64, u64)> {
    let mut tokens = place.split('.');
    let (ours, batch) = tokens.next()?.split_once('-')?;
    let sequence = tokens.nth(2)?.parse().ok()?;
    let marked = tokens.nth(1)? == "$FI";
    let ours = u64::from_str_radix(ours, 16).ok()? == name;
    (marked && ours).then_some((batch.parse().ok()?, sequence))
}

#[cfg(test)]
#[path = "ingest_tests.rs"]
mod tests;
