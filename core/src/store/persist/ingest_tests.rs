//! The promises of a batch, without a server and without a clock. The answers are such as nats-server 2.15.1 gives.

use super::*;

const MS: Duration = Duration::from_millis(1);

struct Bench {
    ingest: Ingest,
    now: Instant,
    sent: u64,
}

fn bench() -> Bench {
    let now = Instant::now();
    Bench {
        ingest: Ingest::new(true, 0xab, now),
        now,
        sent: 0,
    }
}

fn token(id: u64) -> Token {
    Token { lane: 0, id }
}

impl Bench {
    fn write(&mut self) -> Option<Place> {
        self.write_of(None)
    }

    fn write_of(&mut self, value: Option<&Bytes>) -> Option<Place> {
        self.sent += 1;
        let subject = Subject::from(format!("$KV.b.k{}", self.sent));
        let id = token(self.sent);
        self.ingest.place(id, &subject, value, 5000 * MS, self.now)
    }

    /// Writes 16 at once, and then one that begins a batch: the server takes it.
    fn open(&mut self) -> Place {
        let place = self.begin().unwrap();
        assert!(place.begins());
        self.round(false);
        self.hears(1, 0, r#"{"type":"ack","seq":0,"msgs":500}"#);
        place
    }

    fn begin(&mut self) -> Option<Place> {
        for _ in 0..16 {
            assert_eq!(self.write(), None);
        }
        self.now += MS;
        self.sent = 15;
        self.write()
    }

    fn round(&mut self, hurry: bool) -> Option<Task> {
        self.ingest.round(hurry, self.now);
        self.ingest.task(self.now)
    }

    fn hears(&mut self, sequence: u64, operation: u64, answer: &str) -> Vec<(u64, Outcome)> {
        let place = format!("ab-1.250.fail.{sequence}.{operation}.$FI");
        let mut ended = Vec::new();
        let answer = Ack::parse(answer.as_bytes());
        self.ingest.answered(&place, answer, self.now, &mut ended);
        ended
            .into_iter()
            .map(|(token, outcome)| (token.id, outcome))
            .collect()
    }
}

fn written(ids: std::ops::RangeInclusive<u64>) -> Vec<(u64, Outcome)> {
    ids.map(|id| (id, Outcome::Written(None))).collect()
}

fn unsent(ids: std::ops::RangeInclusive<u64>) -> Vec<(u64, Outcome)> {
    ids.map(|id| (id, Outcome::Unsent)).collect()
}

const END: &str = "ab-1.250.fail.4.3.$FI";
const UNKNOWN_BATCH: &str = r#"{"error":{"code":400,"err_code":10208,"description":"batch publish ID unknown"},"stream":"KV_b","seq":0}"#;

#[test]
fn few_writes_go_by_themselves_and_many_begin_a_batch_that_waits_for_the_server() {
    let mut bench = bench();
    for _ in 0..3 {
        for _ in 0..15 {
            assert_eq!(bench.write(), None);
        }
        bench.now += MS;
    }
    bench.now += 5 * MS;
    assert!(bench.begin().unwrap().begins());
    assert_eq!(
        bench.write(),
        None,
        "the server has not said yet that it takes it"
    );
    assert_eq!(
        bench.hears(1, 0, r#"{"type":"ack","seq":0,"msgs":500}"#),
        []
    );
    let place = bench.write().unwrap();
    assert_eq!(place.sequence, 2);
    let mut reply = String::new();
    bench.ingest.reply(place, &mut reply).unwrap();
    assert_eq!(reply, "ab-1.250.fail.2.1.$FI");
    let mut off = Ingest::new(false, 0xab, bench.now);
    for id in 0..100 {
        let subject = Subject::from("$KV.b.k");
        assert_eq!(
            off.place(token(id), &subject, None, 5000 * MS, bench.now),
            None
        );
    }
}

#[test]
fn an_acknowledgement_is_of_all_before_it_and_sets_the_flow() {
    let mut bench = bench();
    bench.open();
    // With the first, as many as may be outstanding once four are acknowledged.
    for _ in 0..4 + OUTSTANDING * 2 - 1 {
        bench.write().unwrap();
    }
    assert_eq!(
        bench.hears(4, 1, r#"{"type":"ack","seq":4,"msgs":2}"#),
        written(16..=19)
    );
    assert_eq!(
        bench.hears(2, 1, r#"{"type":"ack","seq":2,"msgs":2}"#),
        [],
        "an old one"
    );
    assert_eq!(bench.write(), None, "so many times two are outstanding");
    assert_eq!(
        bench.hears(8, 1, r#"{"type":"ack","seq":8,"msgs":4}"#),
        written(20..=23)
    );
    assert!(bench.write().is_some());
}

#[test]
fn a_batch_that_is_quiet_or_waited_for_is_ended_and_its_end_is_of_all_that_are_left() {
    for hurry in [true, false] {
        let mut bench = bench();
        bench.open();
        bench.write().unwrap();
        bench.write().unwrap();
        assert_eq!(bench.round(false), None);
        if !hurry {
            bench.now += 5 * MS;
            assert_eq!(bench.round(false), None);
            bench.now += 5 * MS;
        }
        let Some(Task::End { reply, .. }) = bench.round(hurry) else {
            panic!("no end");
        };
        assert_eq!(reply, END);
        assert_eq!(bench.write(), None, "it takes no more");
        let end = r#"{"stream":"KV_b","seq":44,"batch":"ab-1","count":3}"#;
        assert_eq!(bench.hears(4, 3, end), written(16..=18));
        assert_eq!(bench.ingest.floor, 44);
        assert_eq!(bench.ingest.wakeup(), None);
    }
}

#[test]
fn a_batch_that_goes_on_is_ended_only_when_its_oldest_write_would_wait_too_long() {
    let mut bench = bench();
    bench.open();
    for _ in 0..10 {
        assert_eq!(bench.round(false), None);
        bench.now += 5 * MS;
        bench.write().unwrap();
    }
    assert!(matches!(bench.round(false), Some(Task::End { .. })));

    let mut bench = self::bench();
    bench.open();
    bench.hears(1, 0, r#"{"type":"ack","seq":1,"msgs":2}"#);
    bench.write().unwrap();
    bench.write().unwrap();
    bench.now += 900 * MS;
    assert_eq!(
        bench.round(true),
        None,
        "the server is about to say it by itself"
    );
    bench.now += 100 * MS;
    assert!(
        matches!(bench.round(false), Some(Task::End { .. })),
        "or has not"
    );
}

#[test]
fn after_another_connection_its_end_says_what_was_lost_with_the_old_one() {
    let mut bench = bench();
    bench.open();
    bench.write().unwrap();
    bench.write().unwrap();
    bench.ingest.reconnected(bench.now);
    assert!(matches!(bench.round(false), Some(Task::End { .. })));
    assert_eq!(
        bench.hears(4, 3, r#"{"type":"gap","last_seq":3,"seq":4}"#),
        []
    );
    let mut expected = written(16..=17);
    expected.extend(unsent(18..=18));
    let end = r#"{"stream":"KV_b","seq":44,"batch":"ab-1","count":2}"#;
    assert_eq!(bench.hears(4, 3, end), expected);
}

#[test]
fn where_a_value_stands_for_a_write_every_sixteenth_has_a_name_and_only_those_vouch_for_what_came_before()
 {
    let mut bench = bench();
    bench.open();
    let value = Bytes::from_static(b"v");
    assert!(bench.write().unwrap().named, "no value stands for it");
    let named = std::iter::from_fn(|| bench.write_of(Some(&value)));
    let named: Vec<_> = named.filter(|place| place.named).take(3).collect();
    let sequences: Vec<_> = named.iter().map(|place| place.sequence).collect();
    assert_eq!(sequences, [17, 33, 49]);

    bench.ingest.reconnected(bench.now);
    bench.round(false);
    bench.hears(50, 3, UNKNOWN_BATCH);
    let Some(Task::Read(held)) = bench.round(false) else {
        panic!("nothing is read");
    };
    let found = held.into_iter().take(20).map(|held| {
        let found = match held.sequence {
            17 => Found::Stored(40),
            19 => Found::Same,
            _ => Found::Overwritten,
        };
        (held, found)
    });
    let (found, mut ended) = (found.collect(), Vec::new());
    bench.ingest.found(found, &mut ended);
    let stored = |sequence: u64| match sequence {
        17 => Outcome::Written(Some(40)),
        1..17 | 19 => Outcome::Written(None),
        _ => Outcome::Unsent,
    };
    let expected = (1..=20).map(|sequence| (token(15 + sequence), stored(sequence)));
    assert_eq!(ended, expected.collect::<Vec<_>>());
}

#[test]
fn an_end_without_an_answer_is_sent_again_and_a_batch_that_is_not_known_is_looked_for_in_the_bucket()
 {
    let mut bench = bench();
    bench.ingest.saw(7);
    bench.open();
    bench.write().unwrap();
    bench.ingest.saw(9);
    bench.write().unwrap();
    assert!(bench.round(true).is_some());
    assert_eq!(bench.round(true), None);
    bench.now += PAUSE;
    assert!(matches!(bench.round(false), Some(Task::End { .. })));
    assert_eq!(bench.hears(4, 3, UNKNOWN_BATCH), []);
    let Some(Task::Read(held)) = bench.round(false) else {
        panic!("nothing is read");
    };
    let floors: Vec<_> = held
        .iter()
        .map(|held| (held.token.id, held.floor))
        .collect();
    assert_eq!(floors, [(16, 7), (17, 7), (18, 9)]);
    assert_eq!(bench.round(false), None, "once");

    let found = [Found::Overwritten, Found::Stored(11), Found::Absent];
    let found = held.into_iter().zip(found).collect();
    let mut ended = Vec::new();
    bench.ingest.found(found, &mut ended);
    let outcomes: Vec<_> = ended.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Written(None),
            Outcome::Written(Some(11)),
            Outcome::Unsent
        ],
        "what comes before one that is there was there"
    );
}

#[test]
fn of_a_batch_that_the_server_has_forgotten_the_refused_writes_are_sent_again_at_once() {
    let mut bench = bench();
    bench.open();
    bench.hears(1, 0, r#"{"type":"ack","seq":1,"msgs":500}"#);
    bench.write().unwrap();
    bench.write().unwrap();
    assert_eq!(
        bench.hears(2, 1, UNKNOWN_BATCH),
        [(18, Outcome::Unsent), (17, Outcome::Unsent)]
    );
    assert_eq!(bench.hears(3, 1, UNKNOWN_BATCH), []);
    assert_eq!(bench.round(false), None, "nothing is in doubt");
    assert!(bench.ingest.batch.is_none());
}

#[test]
fn a_refused_write_ends_by_itself_and_what_came_behind_it_is_sent_again() {
    let mut bench = bench();
    bench.open();
    bench.write().unwrap();
    bench.write().unwrap();
    let refused = r#"{"type":"err","seq":2,"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#;
    let [(17, Outcome::Failed(fault))] = &bench.hears(2, 1, refused)[..] else {
        panic!("the write has failed");
    };
    assert!(!fault.transient);
    let mut expected = written(16..=16);
    expected.extend(unsent(18..=18));
    let end = r#"{"stream":"KV_b","seq":44,"batch":"ab-1","count":1}"#;
    assert_eq!(bench.hears(3, 1, end), expected);
    assert_eq!(bench.begin(), None, "for a while all go by themselves");
}

#[test]
fn a_bucket_that_takes_no_batches_is_not_asked_again() {
    let disabled = r#"{"error":{"code":400,"err_code":10205,"description":"batch publish is disabled"},"stream":"KV_b","seq":0}"#;
    let plain = r#"{"stream":"KV_b","seq":12}"#;
    for (answer, outcome) in [
        (disabled, Outcome::Unsent),
        (plain, Outcome::Written(Some(12))),
    ] {
        let mut bench = bench();
        bench.begin().unwrap();
        assert_eq!(bench.hears(1, 0, answer), [(16, outcome)]);
        bench.now += 10_000 * MS;
        assert_eq!(bench.begin(), None);
        assert_eq!(bench.round(false), None);
    }
}

#[test]
fn a_beginning_without_an_answer_is_left_to_its_message_id() {
    let mut bench = bench();
    bench.begin().unwrap();
    bench.now += 5000 * MS;
    assert_eq!(bench.round(true), None);
    assert!(bench.ingest.batch.is_none());
    assert_eq!(
        bench.hears(1, 0, r#"{"type":"ack","seq":0,"msgs":500}"#),
        [],
        "too late"
    );
}
