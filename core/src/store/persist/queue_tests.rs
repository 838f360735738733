//! The promises of the queue, without a server and without a clock.

use super::*;

const MS: Duration = Duration::from_millis(1);

struct Bench {
    queue: Queue<&'static str>,
    now: Instant,
}

fn limits() -> Limits {
    Limits {
        window: 4,
        window_bytes: 1000,
        ack_timeout: 5000 * MS,
        backoff_min: 50 * MS,
        backoff_max: 5000 * MS,
        newest_wins: false,
    }
}

fn bench(limits: Limits) -> Bench {
    let now = Instant::now();
    Bench {
        queue: Queue::new(limits, |a, b| a[..1] == b[..1], 7, now),
        now,
    }
}

/// Different for different keys, but for `y` and `z`.
fn hash(key: &str) -> u32 {
    let key = if key == "z" { "y" } else { key };
    key.bytes()
        .fold(7, |hash: u32, byte| hash.wrapping_mul(31) + u32::from(byte))
}

impl Bench {
    fn push(&mut self, key: &str, job: &'static str) -> Option<&'static str> {
        self.push_until(key, job, None)
    }

    fn push_until(
        &mut self,
        key: &str,
        job: &'static str,
        after: Option<Duration>,
    ) -> Option<&'static str> {
        let terms = Terms {
            bytes: 10,
            deadline: after.map(|after| self.now + after),
        };
        self.queue.push(job, hash(key), terms, self.now)
    }

    /// Sends all that may be sent.
    fn send(&mut self) -> Vec<(Token, &'static str)> {
        let mut sent = Vec::new();
        while let Some(token) = self.queue.start(self.now, 1) {
            sent.push((token, *self.queue.job(token).unwrap()));
        }
        sent
    }

    fn jobs(&mut self) -> Vec<&'static str> {
        self.send().into_iter().map(|(_, job)| job).collect()
    }

    fn fail(&mut self, token: Token) -> Option<Ended<&'static str>> {
        self.queue.failed(token, Fault::transient("503"), self.now)
    }

    fn after(&mut self, time: Duration) -> Vec<Event<&'static str>> {
        self.now += time;
        let mut events = Vec::new();
        self.queue.tick(self.now, &mut events);
        events
    }
}

#[test]
fn a_key_has_one_write_in_flight_and_the_rest_wait_in_order() {
    let mut bench = bench(limits());
    for (key, job) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
        bench.push(key, job);
    }
    let first = bench.send();
    assert_eq!((first[0].1, first[1].1, first.len()), ("a1", "b1", 2));
    assert_eq!(bench.queue.written(first[0].0), Some("a1"));
    let second = bench.send();
    assert_eq!(second[0].1, "a2");
    // An acknowledgement of what has ended already means nothing.
    assert_eq!(bench.queue.written(first[0].0), None);
    bench.queue.written(second[0].0);
    assert_eq!(bench.jobs(), ["a3"]);
}

#[test]
fn a_write_that_fails_is_repeated_before_the_next_of_its_key_and_other_keys_go_on() {
    let mut bench = bench(limits());
    bench.push("a", "a1");
    bench.push("a", "a2");
    let (token, _) = bench.send()[0];
    assert!(bench.fail(token).is_none());
    bench.push("b", "b1");
    assert_eq!(bench.jobs(), ["b1"]);
    bench.after(51 * MS);
    let again = bench.send();
    assert_eq!(
        again,
        [(token, "a1")],
        "the same number, so the same message id"
    );
    bench.queue.written(token);
    assert_eq!(bench.jobs(), ["a2"]);
    assert_eq!(bench.queue.retried(), 1);
}

#[test]
fn a_missing_acknowledgement_is_a_failure_in_doubt() {
    let mut bench = bench(limits());
    bench.push("a", "a1");
    let (token, _) = bench.send()[0];
    assert!(bench.after(4999 * MS).is_empty());
    bench.after(MS);
    assert_eq!(bench.queue.in_flight(), 0);
    bench.after(60 * MS);
    assert_eq!(bench.send(), [(token, "a1")]);
    let left = bench.queue.take_all();
    assert!(left[0].in_doubt && left[0].attempts == 2);
}

#[test]
fn a_late_acknowledgement_ends_the_write_in_whatever_state_it_is() {
    let mut bench = bench(limits());
    bench.push("a", "a1");
    bench.push("a", "a2");
    let (token, _) = bench.send()[0];
    bench.after(5000 * MS);
    assert_eq!(
        bench.queue.written(token),
        Some("a1"),
        "between two attempts"
    );
    assert_eq!(bench.jobs(), ["a2"]);
    assert!(bench.after(100 * MS).is_empty(), "its pause is void");
    assert_eq!(bench.jobs(), [] as [&str; 0]);
}

#[test]
fn a_write_that_can_never_succeed_ends_and_the_next_of_its_key_follows() {
    let mut bench = bench(limits());
    bench.push("a", "a1");
    bench.push("a", "a2");
    let (token, _) = bench.send()[0];
    let fault = Fault::permanent("too large");
    let ended = bench.queue.failed(token, fault, bench.now).unwrap();
    assert_eq!((ended.job, ended.attempts), ("a1", 1));
    assert_eq!(bench.jobs(), ["a2"]);
}

#[test]
fn the_window_bounds_count_and_bytes() {
    let mut bench = bench(limits());
    for key in ["a", "b", "c", "d", "e"] {
        bench.push(key, "x");
    }
    let sent = bench.send();
    assert_eq!(sent.len(), 4);
    bench.queue.written(sent[2].0);
    assert_eq!(bench.send().len(), 1);

    let mut bench = self::bench(limits());
    let terms = Terms {
        bytes: 5000,
        deadline: None,
    };
    bench.queue.push("large", hash("a"), terms, bench.now);
    bench.push("b", "small");
    let sent = bench.send();
    assert_eq!(sent.len(), 1, "one always flies, and alone");
    bench.queue.written(sent[0].0);
    assert_eq!(bench.jobs(), ["small"]);
}

#[test]
fn newest_wins_replaces_what_was_never_sent_and_nothing_else() {
    let mut bench = bench(Limits {
        newest_wins: true,
        ..limits()
    });
    bench.push("a", "a1");
    assert_eq!(bench.push("a", "a2"), Some("a1"));
    let (token, job) = bench.send()[0];
    assert_eq!(job, "a2");
    assert_eq!(bench.push("a", "a3"), None, "a2 is in flight");
    assert_eq!(bench.push("a", "a4"), Some("a3"));
    assert_eq!(bench.push_until("a", "a5", Some(MS)), None, "may expire");
    assert_eq!(bench.push("a", "a6"), None, "somebody waits for a5");
    bench.fail(token);
    bench.after(60 * MS);
    assert_eq!(bench.send(), [(token, "a2")]);
    bench.queue.written(token);
    assert_eq!(bench.jobs(), ["a4"]);
    assert_eq!(bench.queue.superseded(), 2);
}

#[test]
fn a_deadline_takes_a_waiting_write_out_and_leaves_one_in_flight_in_its_place() {
    let mut bench = bench(limits());
    bench.push_until("a", "a1", Some(100 * MS));
    bench.push_until("a", "a2", Some(100 * MS));
    bench.push("a", "a3");
    let (token, _) = bench.send()[0];
    let events = bench.after(100 * MS);
    let [Event::Overdue(overdue), Event::Expired(ended)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((*overdue, ended.job, ended.in_doubt), (token, "a2", false));
    assert_eq!(
        bench.jobs(),
        [] as [&str; 0],
        "a1 may still arrive, so a3 waits"
    );
    // Its failure is its end: nobody waits for it any more.
    assert_eq!(bench.fail(token).unwrap().job, "a1");
    assert_eq!(bench.jobs(), ["a3"]);
}

#[test]
fn another_connection_repeats_at_once_what_the_old_one_had_in_flight() {
    let mut bench = bench(limits());
    for (key, job) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "c1")] {
        bench.push(key, job);
    }
    let sent = bench.send();
    bench.fail(sent[2].0);
    let mut events = Vec::new();
    bench.queue.reconnected(2, &mut events);
    assert!(events.is_empty());
    assert_eq!(bench.jobs(), ["a1", "b1", "c1"]);
    bench.queue.reconnected(1, &mut events);
    assert_eq!(bench.queue.in_flight(), 3, "no news of an older connection");
}

#[test]
fn a_bucket_that_is_down_gets_a_few_probes_and_the_first_success_opens_it() {
    let mut bench = bench(Limits {
        window: 100,
        ..limits()
    });
    let keys: Vec<String> = (0..200).map(|i| format!("k{i}")).collect();
    for key in &keys {
        bench.push(key, "x");
    }
    let sent = bench.send();
    for (token, _) in &sent {
        bench.fail(*token);
    }
    assert_eq!(bench.send().len(), 0, "a pause");
    let probes = loop {
        let wakeup = bench.queue.next_wakeup(bench.now).unwrap();
        let step = wakeup - bench.now;
        assert!(step <= 1000 * MS);
        bench.after(step);
        let probes = bench.send();
        if !probes.is_empty() {
            break probes;
        }
    };
    assert_eq!(probes.len(), 4);
    bench.queue.written(probes[0].0);
    assert_eq!(bench.send().len(), 97);
}

#[test]
fn what_is_left_at_the_end_comes_out_oldest_first_and_in_doubt_where_it_was_sent() {
    let mut bench = bench(Limits {
        window: 1,
        ..limits()
    });
    for (key, job) in [("a", "a1"), ("b", "b1"), ("a", "a2")] {
        bench.push(key, job);
    }
    bench.send();
    let left = bench.queue.take_all();
    let left: Vec<_> = left.iter().map(|e| (e.job, e.in_doubt)).collect();
    assert_eq!(left, [("a1", true), ("b1", false), ("a2", false)]);
    assert!(bench.queue.is_empty() && bench.queue.in_flight() == 0);
    assert_eq!(bench.queue.oldest(), None);
    bench.push("a", "again");
    assert_eq!(bench.jobs(), ["again"]);
}

/// A model: whatever fails, is lost or comes late, the values of a key arrive in order, and the last one last.
#[test]
fn no_disorder_of_outcomes_brings_an_old_value_back() {
    for seed in 1..200_u64 {
        let mut random = seed;
        let mut dice = move |sides: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % sides
        };
        let now = Instant::now();
        let mut queue: Queue<u64> = Queue::new(limits(), |a, b| a % 3 == b % 3, seed, now);
        let (mut now, mut pushed, mut epoch) = (now, 0, 1);
        let mut stored: HashMap<u64, Vec<u64>> = HashMap::new();
        let mut wire: VecDeque<(Token, u64)> = VecDeque::new();
        let mut events = Vec::new();
        while pushed < 200 || !queue.is_empty() {
            if pushed < 200 {
                let key = pushed % 3;
                let terms = Terms {
                    bytes: 1,
                    deadline: None,
                };
                queue.push(pushed, key as u32, terms, now);
                pushed += 1;
            }
            while let Some(token) = queue.start(now, epoch) {
                let job = *queue.job(token).unwrap();
                wire.push_back((token, job));
            }
            for _ in 0..dice(5) {
                let Some((token, job)) = wire.pop_front() else {
                    break;
                };
                let fate = dice(10);
                if fate < 6 {
                    // Stored once, by its id; the acknowledgement arrives or does not.
                    let values = stored.entry(job % 3).or_default();
                    if !values.contains(&job) {
                        values.push(job);
                    }
                    if fate < 5 {
                        queue.written(token);
                    }
                } else if fate < 8 {
                    queue.failed(token, Fault::transient("503"), now);
                }
            }
            now += Duration::from_millis(dice(400));
            if dice(40) == 0 {
                epoch += 1;
                queue.reconnected(epoch, &mut events);
            }
            queue.tick(now, &mut events);
        }
        assert!(events.is_empty());
        for (key, values) in stored {
            let expected: Vec<u64> = (0..200).filter(|v| v % 3 == key).collect();
            assert_eq!(values, expected, "seed {seed}");
        }
    }
}

#[test]
fn keys_of_one_hash_keep_their_own_values() {
    let mut bench = bench(Limits {
        newest_wins: true,
        ..limits()
    });
    for (key, job) in [("y", "y1"), ("z", "z1"), ("z", "z2"), ("y", "y2")] {
        let replaced = bench.push(key, job);
        assert_eq!(replaced, (job == "z2").then_some("z1"));
    }
    let mut stored = Vec::new();
    while let [(token, job)] = bench.send()[..] {
        stored.push(job);
        bench.queue.written(token);
    }
    assert_eq!(stored, ["y1", "z2", "y2"]);
}
