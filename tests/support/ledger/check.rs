//! What everybody was told, against what the bucket holds.

use super::load::{History, LOCK};
use super::{Count, KEYS};
use nats_service::{KvStore, Operation, ReadLevel};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// What a run came to.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// Faults that were made and undone.
    pub faults: usize,
    /// Calls that were answered.
    pub answers: usize,
    /// Compare-and-sets that were granted.
    pub granted: usize,
    /// Changes that the watch brought.
    pub seen: usize,
    /// Promises that were broken; empty when all is well.
    pub problems: Vec<String>,
}

impl Findings {
    pub(super) fn problem(&mut self, text: String) {
        self.problems.push(text);
    }
}

pub(super) async fn compare(store: &KvStore<Count>, history: &History, findings: &mut Findings) {
    let mut kept: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    let names = ["first", "later"];
    let keys = names
        .iter()
        .flat_map(|kind| (0..KEYS).map(move |key| format!("{kind}.{key}")))
        .chain([LOCK.to_owned()]);
    for name in keys {
        let key = store.key(name.clone()).expect("a key");
        let last = key.read(ReadLevel::Confirmed).await.expect("a majority");
        let revisions = key.history().await.expect("it can be read");
        let revisions = revisions.into_iter().filter_map(|change| {
            let Operation::Put(count) = change.operation else {
                return None;
            };
            Some((change.revision, count.number))
        });
        let revisions: Vec<_> = revisions.collect();
        let last = last.map(|entry| (entry.revision, entry.value().number));
        if last != revisions.last().copied() {
            findings.problem(format!("{name}: {last:?} is not the last of {revisions:?}"));
        }
        kept.insert(name, revisions);
    }
    let told = history.told();
    (findings.answers, findings.granted, findings.seen) =
        (told.answers, told.granted.len(), told.seen.len());

    // No older value returns: numbers grow with revisions.
    for (name, revisions) in &kept {
        if !revisions.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1) {
            findings.problem(format!("{name} is out of order: {revisions:?}"));
        }
    }
    // No acknowledged write is lost.
    for (name, number) in &told.acknowledged {
        let last = kept[name].last().map_or(0, |(_, number)| *number);
        if last < *number {
            findings.problem(format!("{name}: {number} was acknowledged, {last} is kept"));
        }
    }
    // The watch has brought everything that is there, in order, and each once.
    if !told.seen.is_sorted_by(|one, next| one.0 < next.0) {
        findings.problem("the watch brought something twice, or out of order".to_owned());
    }
    let seen: HashSet<(&str, u64, u64)> = told
        .seen
        .iter()
        .map(|(revision, key, number)| (key.as_str(), *revision, *number))
        .collect();
    for (name, revisions) in &kept {
        // What was written after the watch had ended was not for it to see.
        let end = told.seen.last().map_or(0, |(revision, ..)| *revision);
        for (revision, number) in revisions.iter().filter(|(revision, _)| *revision <= end) {
            if !seen.contains(&(name.as_str(), *revision, *number)) {
                findings.problem(format!("the watch missed {name} at {revision}: {number}"));
            }
        }
    }
    // A compare-and-set is granted once.
    let expected: HashSet<u64> = told.granted.iter().map(|(expected, _)| *expected).collect();
    if expected.len() != told.granted.len() {
        findings.problem(format!("granted twice: {:?}", told.granted));
    }
    let last = kept[LOCK].last().map_or(0, |(_, number)| *number);
    let granted = told.granted.len() as u64;
    if !(granted..=granted + told.unknown).contains(&last) {
        findings.problem(format!(
            "{granted} compare-and-sets were granted and {} unknown, and the value is {last}",
            told.unknown
        ));
    }
}
