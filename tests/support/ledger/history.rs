//! What everybody was told, and what the bucket holds in the end: what [`check`](super::check) compares.

use super::{Count, HISTORY};
use futures_util::{StreamExt as _, stream};
use nats_service::{KvStore, Operation, ReadLevel};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

/// The key that is contended for.
pub(super) const LOCK: &str = "lock";
/// How many keys are read at once in the end.
const AT_ONCE: usize = 16;

/// A number that a caller was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// In the bucket.
    pub(super) key: String,
    pub(super) number: u64,
    /// Which instance of the service gave it.
    pub(super) by: u64,
}

/// A compare-and-set that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    /// The revision that it was to replace.
    pub(super) expected: u64,
    /// Its own.
    pub(super) revision: u64,
    pub(super) number: u64,
}

/// One revision of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) revision: u64,
    pub(super) number: u64,
    /// Which instance of the service wrote it.
    pub(super) by: u64,
}

impl Kept {
    fn of(revision: u64, count: &Count) -> Self {
        Self {
            revision,
            number: count.number,
            by: count.by,
        }
    }
}

/// What everybody was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) answers: Vec<Answer>,
    /// Instances that were killed, and how many answers had been written or given up long before: of what they answered after
    /// those, what they had not written yet is gone.
    pub(super) killed: BTreeMap<u64, usize>,
    pub(super) granted: Vec<Grant>,
    /// Compare-and-sets of which nothing is known.
    pub(super) unknown: u64,
    /// Those that were refused. One that leads no more, and does not know it yet, refuses by what it knows, while the leader
    /// gets the same message and takes it: so one of these may be there.
    pub(super) refused: u64,
    /// What the watch brought, in order.
    pub(super) seen: Vec<(String, Kept)>,
    /// What the services were told to be stored: the instance, the key, the revision.
    pub(super) stored: Vec<(u64, String, u64)>,
    /// What it said that it must not.
    pub(super) wrong: Vec<String>,
}

impl Told {
    /// The answers that have to be in the bucket.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = &Answer> {
        let may_be_lost = |(place, answer): &(usize, &Answer)| {
            let settled = self.killed.get(&answer.by);
            answer.key.starts_with("later.") && settled.is_some_and(|settled| place >= settled)
        };
        let answers = self.answers.iter().enumerate();
        let answers = answers.filter(move |answer| !may_be_lost(answer));
        answers.map(|(_, answer)| answer)
    }

    /// Every key that anybody was told of.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let answered = self.answers.iter().map(|answer| &answer.key);
        let stored = self.stored.iter().map(|(_, name, _)| name);
        let seen = self.seen.iter().map(|(name, _)| name);
        let names = answered.chain(stored).chain(seen).cloned();
        names.chain([LOCK.to_owned()]).collect()
    }

    pub(super) fn saw(&mut self, key: String, revision: u64, count: &Count) {
        self.seen.push((key, Kept::of(revision, count)));
    }
}

/// The same, while it is written down.
#[derive(Debug, Default)]
pub(super) struct History {
    told: Mutex<Told>,
}

impl History {
    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no panic")
    }
}

/// What the bucket holds of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct Key {
    /// What a read says that a majority has confirmed.
    pub(super) last: Option<Kept>,
    /// In order.
    pub(super) revisions: Vec<Kept>,
}

impl Key {
    /// The first revision of which the history is whole.
    pub(super) fn whole_from(&self) -> u64 {
        match self.revisions.as_slice() {
            [first, ..] if self.revisions.len() as i64 >= HISTORY => first.revision,
            _ => 0,
        }
    }
}

/// What the bucket holds.
pub(super) type Held = BTreeMap<String, Key>;

/// Reads these keys.
pub(super) async fn held(store: &KvStore<Count>, names: BTreeSet<String>) -> Held {
    let read = async |name: String| {
        let key = store.key(name.clone()).expect("a key");
        let last = key.read(ReadLevel::Confirmed).await.expect("a majority");
        let revisions = key.history().await.expect("it can be read").into_iter();
        let revisions = revisions.filter_map(|change| match &change.operation {
            Operation::Put(count) => Some(Kept::of(change.revision, count)),
            _ => None,
        });
        let key = Key {
            last: last.map(|entry| Kept::of(entry.revision, entry.value())),
            revisions: revisions.collect(),
        };
        (name, key)
    };
    stream::iter(names)
        .map(read)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}
