//! Histories that are broken on purpose: a check that finds nothing proves nothing until it was seen to find something.

use super::check::{adds_up, problems};
use super::history::{Answer, Grant, Held, Kept, Key, LOCK, Told};
use super::{HISTORY, KEYS};
use nats_service::WriterStats;

fn kept(revision: u64, number: u64, by: u64) -> Kept {
    Kept {
        revision,
        number,
        by,
    }
}

fn answer(key: &str, number: u64, by: u64) -> Answer {
    let key = key.to_owned();
    Answer { key, number, by }
}

fn grant(expected: u64, revision: u64, number: u64) -> Grant {
    Grant {
        expected,
        revision,
        number,
    }
}

/// What was told, and what is held, as long as nothing is wrong. The service was replaced once.
struct Story {
    told: Told,
    held: Held,
}

impl Story {
    fn sound() -> Self {
        let mut story = Self {
            told: Told::default(),
            held: Held::new(),
        };
        for kind in ["first", "later"] {
            for key in 0..KEYS {
                story.holds(&format!("{kind}.{key}"), &[]);
            }
        }
        let first = [kept(1, 1, 1), kept(4, 2, 1), kept(7, 3, 2)];
        let later = [kept(2, 1, 1), kept(5, 2, 1), kept(8, 3, 2)];
        let lock = [kept(3, 1, 0), kept(6, 2, 0), kept(9, 3, 0)];
        story.holds("first.0", &first);
        story.holds("later.0", &later);
        story.holds(LOCK, &lock);
        for number in 0..3 {
            let (first, later) = (first[number], later[number]);
            let answers = [("first.0", first), ("later.0", later)];
            let answers = answers.map(|(key, kept)| answer(key, kept.number, kept.by));
            story.told.answers.extend(answers);
            let seen = [("first.0", first), ("later.0", later), (LOCK, lock[number])];
            let seen = seen.map(|(key, kept)| (key.to_owned(), kept));
            story.told.seen.extend(seen);
        }
        // The second one was written, and its writer not told.
        story.told.granted = vec![grant(0, 3, 1), grant(6, 9, 3)];
        story.told.unknown = 1;
        story
    }

    /// The bucket has these revisions of a key, and reads the last.
    fn holds(&mut self, name: &str, revisions: &[Kept]) {
        let key = Key {
            last: revisions.last().copied(),
            revisions: revisions.to_vec(),
        };
        self.held.insert(name.to_owned(), key);
    }

    fn key(&mut self, name: &str) -> &mut Key {
        self.held.get_mut(name).expect("it is held")
    }

    /// A revision is gone without a trace; the one before is the last then, where it was.
    fn loses(&mut self, name: &str, revision: u64) {
        let key = self.key(name);
        key.revisions.retain(|kept| kept.revision != revision);
        key.last = key.revisions.last().copied();
        self.told.seen.retain(|(_, kept)| kept.revision != revision);
    }

    fn problems(&self) -> Vec<String> {
        problems(&self.told, &self.held)
    }

    /// Exactly this is found.
    #[track_caller]
    fn has(&self, what: &[&str]) {
        let found = self.problems();
        let all = found.len() == what.len() && found.iter().zip(what).all(|(f, w)| f.contains(w));
        assert!(all, "{found:#?} is not {what:?}");
    }
}

#[test]
fn a_sound_history_has_no_problem() {
    Story::sound().has(&[]);
}

#[test]
fn an_acknowledged_write_that_is_lost_is_found_also_when_a_later_one_is_there() {
    for (name, revision, number) in [("first.0", 7, 3), ("first.0", 4, 2), ("later.0", 5, 2)] {
        let mut story = Story::sound();
        story.loses(name, revision);
        let lost = format!("\"{name}\", number: {number}, by: ");
        story.has(&[&lost]);
        assert!(story.problems()[0].contains("is not there"));
    }
}

#[test]
fn an_answer_whose_write_another_instance_made_is_found() {
    let mut story = Story::sound();
    story.told.answers.push(answer("first.0", 3, 1));
    story.has(&["number: 3, by: 1 } was acknowledged, and is not there"]);
}

#[test]
fn what_was_to_be_written_later_may_go_with_a_killed_service_and_nothing_else_may() {
    let mut story = Story::sound();
    story.told.killed.insert(1, 3);
    story.loses("later.0", 5);
    story.has(&[]);
    // One was written long before; another instance has answered the next; and the last was written before it was answered.
    for (name, revision, number) in [("later.0", 2, 1), ("later.0", 8, 3), ("first.0", 4, 2)] {
        let mut story = Story::sound();
        story.told.killed.insert(1, 3);
        story.loses(name, revision);
        story.has(&[&format!("\"{name}\", number: {number}, by: ")]);
    }
}

#[test]
fn an_older_value_that_returns_is_found() {
    let mut story = Story::sound();
    let returned = kept(10, 1, 2);
    story.key("later.0").revisions.push(returned);
    story.key("later.0").last = Some(returned);
    story.told.seen.push(("later.0".to_owned(), returned));
    story.has(&["later.0 is out of order, as 2 wrote it"]);
}

#[test]
fn a_write_that_is_there_twice_is_found() {
    let mut story = Story::sound();
    let again = kept(10, 3, 2);
    story.key("first.0").revisions.push(again);
    story.key("first.0").last = Some(again);
    story.told.seen.push(("first.0".to_owned(), again));
    story.has(&["first.0 is out of order, as 2 wrote it"]);
}

#[test]
fn two_instances_may_overtake_each_other_unless_the_first_was_acknowledged_before() {
    let overtaken = [kept(1, 1, 1), kept(4, 3, 2), kept(7, 2, 1)];
    for (name, what) in [
        ("later.0", None),
        ("first.0", Some("was asked for, and is newer: 7")),
    ] {
        let mut story = Story::sound();
        let seen = story.told.seen.iter_mut().filter(|(of, _)| of == name);
        for ((_, seen), kept) in seen.zip(overtaken) {
            seen.number = kept.number;
            seen.by = kept.by;
        }
        let seen = story.told.seen.iter().filter(|(of, _)| of == name);
        let seen: Vec<Kept> = seen.map(|(_, kept)| *kept).collect();
        story.holds(name, &seen);
        story.has(what.as_slice());
    }
}

#[test]
fn a_last_value_that_is_not_the_last_revision_is_found() {
    let mut story = Story::sound();
    story.key("first.0").last = Some(kept(4, 2, 1));
    story.has(&["first.0: Some(Kept { revision: 4"]);
    story.key("first.0").last = None;
    story.has(&["first.0: None is read"]);
}

#[test]
fn a_watch_with_a_hole_is_found() {
    let mut story = Story::sound();
    story.told.seen.retain(|(_, kept)| kept.revision != 5);
    story.has(&["the watch missed later.0: Kept { revision: 5"]);
}

#[test]
fn a_watch_that_brings_something_twice_or_late_is_found() {
    let mut story = Story::sound();
    story.told.seen.insert(5, story.told.seen[4].clone());
    story.has(&["twice, or out of order"]);
    let mut story = Story::sound();
    story.told.seen.swap(4, 5);
    story.has(&["twice, or out of order"]);
}

#[test]
fn a_watch_that_brings_what_is_not_there_is_found() {
    let mut story = Story::sound();
    story.told.seen[4].1.number = 9;
    story.has(&["the watch brought later.0: Kept { revision: 5, number: 9"]);
    let mut story = Story::sound();
    // It was there once, and the bucket has lost it.
    let lost = kept(10, 4, 2);
    story.told.seen.push(("first.0".to_owned(), lost));
    story.has(&["the watch brought first.0: Kept { revision: 10"]);
}

#[test]
fn a_watch_that_begins_anew_without_a_reason_is_found() {
    let mut story = Story::sound();
    story.told.wrong.push("the watch said Reset".to_owned());
    story.has(&["Reset"]);
}

#[test]
fn a_compare_and_set_that_is_granted_twice_is_found() {
    // Both were told so, and one has overwritten the other.
    let mut story = Story::sound();
    story.told.granted.push(grant(6, 10, 3));
    story.told.seen.push((LOCK.to_owned(), kept(10, 3, 0)));
    story.key(LOCK).revisions.push(kept(10, 3, 0));
    story.key(LOCK).last = Some(kept(10, 3, 0));
    story.has(&[
        "lock is out of order",
        "granted twice",
        "lock: Kept { revision: 10",
    ]);
}

#[test]
fn a_compare_and_set_whose_value_is_lost_is_found() {
    let mut story = Story::sound();
    story.loses(LOCK, 9);
    story.has(&["revision: 9, number: 3 } was granted, and is not there"]);
    // The same, where another has taken its place.
    let mut story = Story::sound();
    story.loses(LOCK, 6);
    story.has(&["lock: Kept { revision: 9, number: 3"]);
}

#[test]
fn more_or_fewer_values_than_compare_and_sets_are_found() {
    let mut story = Story::sound();
    story.told.unknown = 0;
    story.has(&["2 compare-and-sets were granted, 0 unknown and 0 refused, and the value is 3"]);
    story.told.refused = 1;
    story.has(&[]);
}

#[test]
fn a_history_that_was_cut_is_made_whole_by_what_the_watch_saw() {
    let mut story = Story::sound();
    let count = HISTORY as u64;
    // One more than the bucket keeps: the first is gone, as it may.
    let all: Vec<Kept> = (1..=count + 1).map(|n| kept(100 + n, n, 1)).collect();
    let seen = all.iter().map(|kept| ("first.1".to_owned(), *kept));
    story.told.seen.extend(seen);
    story.told.answers.push(answer("first.1", 1, 1));
    story.holds("first.1", &all[1..]);
    story.has(&[]);
    // What nobody has seen is not known to have been there.
    story.told.seen.retain(|(_, kept)| kept.revision != 101);
    story.has(&["\"first.1\", number: 1, by: 1 } was acknowledged"]);
    // What is kept no longer keeps its order all the same.
    story
        .told
        .seen
        .push(("first.1".to_owned(), kept(101, 7, 1)));
    story.told.answers.pop();
    story.told.seen.sort_by_key(|(_, kept)| kept.revision);
    story.has(&["first.1 is out of order"]);
}

#[test]
fn counts_that_do_not_add_up_are_found() {
    let mut writer = WriterStats::default();
    (writer.accepted, writer.written, writer.given_up) = (10, 6, 1);
    (writer.superseded, writer.queued, writer.in_flight) = (1, 1, 1);
    assert_eq!(adds_up(10, &writer), Ok(()));
    assert!(adds_up(11, &writer).is_err(), "one was not taken over");
    writer.written = 5;
    assert!(adds_up(10, &writer).is_err(), "one was forgotten");
    writer.written = 7;
    assert!(adds_up(10, &writer).is_err(), "one was counted twice");
}

#[test]
fn a_write_that_is_not_where_the_server_said_it_is_is_found() {
    let mut story = Story::sound();
    let kept = story.held["later.0"].revisions[0];
    let told = (kept.by, "later.0".to_owned(), kept.revision);
    story.told.stored.push(told);
    story.has(&[]);
    story.told.stored.push((kept.by, "later.0".to_owned(), 999));
    story.has(&["later.0 is stored with revision 999"]);
}
