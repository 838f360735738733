//! What everybody was told, against what the bucket holds: the promises, one function each. That each of them finds what it
//! looks for is tested in `check_tests.rs`, with histories that are broken on purpose.

use super::history::{Answer, Held, Kept, LOCK, Told};
use nats_service::WriterStats;
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
    /// What each server has, where that is not the same: no promise, but what becomes of one when that server is asked.
    pub replicas: Vec<String>,
}

impl Findings {
    /// Compares what was told with what is held.
    pub(super) fn judge(&mut self, told: &Told, held: &Held) {
        self.answers = told.answers.len();
        self.granted = told.granted.len();
        self.seen = told.seen.len();
        self.problems.extend(problems(told, held));
    }
}

/// Every promise that was broken.
pub(super) fn problems(told: &Told, held: &Held) -> Vec<String> {
    let known = known(told, held);
    let mut found = told.wrong.clone();
    for (name, revisions) in &known {
        last_is_last(name, held, &mut found);
        nothing_old_returns(name, revisions, &mut found);
    }
    nothing_acknowledged_is_lost(told, &known, &mut found);
    nothing_stored_is_lost(told, &known, &mut found);
    the_watch_misses_nothing(told, held, &mut found);
    a_compare_and_set_is_granted_once(told, held, &mut found);
    found
}

/// All revisions of all keys that are known, in order: what is held, and what the watch brought before the bucket's history
/// was cut there.
fn known(told: &Told, held: &Held) -> BTreeMap<String, Vec<Kept>> {
    let mut known = BTreeMap::new();
    for (name, key) in held {
        let cut = key.whole_from();
        let seen = told.seen.iter().filter(|(of, _)| of == name);
        let seen = seen.map(|(_, kept)| *kept);
        let mut revisions: Vec<Kept> = seen.filter(|kept| kept.revision < cut).collect();
        revisions.extend(&key.revisions);
        known.insert(name.clone(), revisions);
    }
    known
}

fn last_is_last(name: &str, held: &Held, found: &mut Vec<String>) {
    let key = &held[name];
    if key.last != key.revisions.last().copied() {
        found.push(format!(
            "{name}: {:?} is read, and not the last of {:?}",
            key.last, key.revisions
        ));
    }
}

/// Numbers grow with revisions. Two instances that run side by side, one of which drains, may overtake each other; one does
/// not overtake itself.
fn nothing_old_returns(name: &str, revisions: &[Kept], found: &mut Vec<String>) {
    let writers: HashSet<u64> = revisions.iter().map(|kept| kept.by).collect();
    let grows = |revisions: &mut dyn Iterator<Item = &Kept>| {
        revisions.is_sorted_by(|one, next| one.revision < next.revision && one.number < next.number)
    };
    for writer in writers {
        if !grows(&mut revisions.iter().filter(|kept| kept.by == writer)) {
            found.push(format!(
                "{name} is out of order, as {writer} wrote it: {revisions:?}"
            ));
        }
    }
}

/// Every answer has its revision, and what was written before its answer has one before the next answer's.
fn nothing_acknowledged_is_lost(
    told: &Told,
    known: &BTreeMap<String, Vec<Kept>>,
    found: &mut Vec<String>,
) {
    let mut before: BTreeMap<&str, (u64, &Answer)> = BTreeMap::new();
    for answer in told.acknowledged() {
        let is_that = |kept: &&Kept| (kept.number, kept.by) == (answer.number, answer.by);
        let Some(kept) = known[&answer.key].iter().find(is_that) else {
            found.push(format!("{answer:?} was acknowledged, and is not there"));
            continue;
        };
        if !answer.key.starts_with("first.") {
            continue;
        }
        let earlier = before.insert(&answer.key, (kept.revision, answer));
        if let Some((revision, earlier)) = earlier.filter(|(revision, _)| *revision > kept.revision)
        {
            found.push(format!(
                "{earlier:?} was acknowledged before {answer:?} was asked for, and is newer: {revision}"
            ));
        }
    }
}

/// What a service was told to be stored has that revision.
fn nothing_stored_is_lost(
    told: &Told,
    known: &BTreeMap<String, Vec<Kept>>,
    found: &mut Vec<String>,
) {
    for (by, name, revision) in &told.stored {
        let is_that = |kept: &Kept| (kept.revision, kept.by) == (*revision, *by);
        if !known[name].iter().any(is_that) {
            found.push(format!(
                "{by} was told that {name} is stored with revision {revision}, and it is not there"
            ));
        }
    }
}

/// It has brought everything that is there, in order, each once, and nothing that is not.
fn the_watch_misses_nothing(told: &Told, held: &Held, found: &mut Vec<String>) {
    let revisions = told.seen.iter().map(|(_, kept)| kept.revision);
    if !revisions.is_sorted_by(|one, next| one < next) {
        found.push("the watch brought something twice, or out of order".to_owned());
    }
    let seen: HashSet<(&str, u64)> = told
        .seen
        .iter()
        .map(|(name, kept)| (name.as_str(), kept.revision))
        .collect();
    // What was written after the watch had ended was not for it to see.
    let end = told.seen.iter().map(|(_, kept)| kept.revision).max();
    for (name, key) in held {
        for kept in &key.revisions {
            if Some(kept.revision) <= end && !seen.contains(&(name.as_str(), kept.revision)) {
                found.push(format!("the watch missed {name}: {kept:?}"));
            }
        }
    }
    for (name, kept) in &told.seen {
        let key = &held[name];
        if kept.revision >= key.whole_from() && !key.revisions.contains(kept) {
            found.push(format!(
                "the watch brought {name}: {kept:?}, which is not there"
            ));
        }
    }
}

/// Each takes the revision that it names, and no other takes that one: so the value is counted up by one each time.
fn a_compare_and_set_is_granted_once(told: &Told, held: &Held, found: &mut Vec<String>) {
    let lock = &held[LOCK];
    let expected: HashSet<u64> = told.granted.iter().map(|grant| grant.expected).collect();
    if expected.len() != told.granted.len() {
        found.push(format!("granted twice: {:?}", told.granted));
    }
    for one_next in lock.revisions.windows(2) {
        if let [one, next] = one_next
            && next.number != one.number + 1
        {
            found.push(format!("{LOCK}: {next:?} was written over {one:?}"));
        }
    }
    for grant in &told.granted {
        let is_that = |kept: &Kept| (kept.revision, kept.number) == (grant.revision, grant.number);
        if grant.revision >= lock.whole_from() && !lock.revisions.iter().any(is_that) {
            found.push(format!("{grant:?} was granted, and is not there"));
        }
    }
    let last = lock.revisions.last().map_or(0, |kept| kept.number);
    let granted = told.granted.len() as u64;
    if !(granted..=granted + told.unknown + told.refused).contains(&last) {
        found.push(format!(
            "{granted} compare-and-sets were granted, {} unknown and {} refused, and the value is {last}",
            told.unknown, told.refused
        ));
    }
}

/// Everything that a service handled was written, or given up, or replaced, or waits, and its writer says so.
pub(super) fn adds_up(handled: u64, writer: &WriterStats) -> Result<(), String> {
    let ended = writer.written + writer.given_up + writer.superseded;
    let pending = (writer.queued + writer.in_flight) as u64;
    match (writer.accepted, writer.accepted) == (handled, ended + pending) {
        true => Ok(()),
        false => Err(format!(
            "{handled} were handled, and the writer says {writer:?}"
        )),
    }
}
