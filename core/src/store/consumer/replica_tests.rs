//! A consumer that the server has made on a replica which lags behind the leader: played word by word, for no fault of a real
//! cluster makes a replica stay behind whenever that is wanted.

use super::{Options, OrderedConsumer, READ_HEARTBEAT, Start, Step};
use crate::store::stream::Stream;
use crate::wire::spec::StoreKind;
use async_nats::jetstream;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The stream's last sequence, as its leader has it. It is of another subject.
const LAST: u64 = 7;

/// What one consumer after another is and says: on the server `a`, which leads, or on `b`, which lags.
type Script = &'static [(&'static str, &'static [Say])];

#[derive(Debug, Clone, Copy)]
enum Say {
    /// The message of this sequence; the replica has no more.
    Message(u64),
    /// The replica is at this sequence and has nothing to bring, so many times.
    At(u64, usize),
}

/// What is there beside the consumer that answers a question.
#[derive(Debug, Clone, Copy, Default)]
struct Others {
    /// The message of these subjects that the leader has, if it has one.
    leader: Option<u64>,
    /// The last one that another replica has, and how far it is. Without it, questions to a replica are not answered.
    replica: Option<(u64, u64)>,
}

async fn open(script: Script) -> OrderedConsumer {
    let others = Others {
        leader: Some(5),
        replica: None,
    };
    open_beside(others, script).await
}

async fn open_beside(others: Others, script: Script) -> OrderedConsumer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut played = Played {
            stream: BufReader::new(stream),
            subscriptions: Vec::new(),
            others,
        };
        played.play(script).await;
    });
    let js = jetstream::new(async_nats::connect(url).await.unwrap());
    let options = Options {
        filters: vec!["$KV.b.k".to_owned()],
        start: Start::All,
        headers_only: false,
        heartbeat: READ_HEARTBEAT,
    };
    let consumer = OrderedConsumer::open(Stream::new(js, StoreKind::Kv, "b"), options);
    consumer.await.unwrap()
}

/// The sequences that are said to be all that was there.
async fn initial(mut consumer: OrderedConsumer) -> Vec<u64> {
    let mut sequences = Vec::new();
    loop {
        let step = tokio::time::timeout(Duration::from_secs(20), consumer.next_step());
        match step.await.unwrap().unwrap().unwrap() {
            Step::Message(stored, _) => sequences.push(stored.sequence),
            Step::CaughtUp => return sequences,
            _ => {}
        }
    }
}

/// A server, as far as one client with one consumer sees it.
struct Played {
    stream: BufReader<TcpStream>,
    /// The subject, and its number.
    subscriptions: Vec<(String, String)>,
    others: Others,
}

impl Played {
    async fn play(&mut self, script: Script) {
        let info = json!({
            "server_id": "a", "server_name": "a", "version": "2.15.1", "go": "", "host": "127.0.0.1", "port": 4222,
            "headers": true, "max_payload": 1_048_576, "proto": 1, "client_id": 1,
        });
        self.write(&format!("INFO {info}\r\n")).await;
        let mut script = script.iter();
        let mut line = String::new();
        while self.stream.read_line(&mut line).await.unwrap() > 0 {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["PING"] => self.write("PONG\r\n").await,
                ["SUB", subject, number] => {
                    let subscription = (subject.replace('*', ""), (*number).to_owned());
                    self.subscriptions.push(subscription);
                }
                ["PUB", subject, reply, length] => {
                    let mut body = vec![0; length.parse::<usize>().unwrap() + 2];
                    self.stream.read_exact(&mut body).await.unwrap();
                    if subject.starts_with("$JS.API.STREAM.INFO.") {
                        self.info(reply).await;
                    } else if subject.starts_with("$JS.API.DIRECT.GET.") {
                        self.last(reply).await;
                    } else if subject.starts_with("$JS.API.CONSUMER.CREATE.") {
                        let asked: Value = serde_json::from_slice(&body).unwrap();
                        let to = asked["config"]["deliver_subject"].as_str().unwrap();
                        let (on, says) = script.next().expect("no more consumers than that");
                        self.made(reply, on, says).await;
                        self.deliver(to, says).await;
                    }
                }
                _ => {}
            }
            line.clear();
        }
    }

    async fn info(&mut self, reply: &str) {
        let info = json!({
            "config": { "num_replicas": 3 },
            "state": {
                "messages": 3, "bytes": 300, "first_seq": 1, "last_seq": LAST,
                "subjects": self.others.leader.map(|_| json!({ "$KV.b.k": 1 })),
            },
            "total": self.others.leader.iter().count(),
            "created": "2026-01-01T00:00:00Z",
            "cluster": { "leader": "a" },
        });
        self.message(reply, reply, "", &info.to_string()).await;
    }

    /// Another replica's answer to a multi-get.
    async fn last(&mut self, reply: &str) {
        let Some((last, seen)) = self.others.replica else {
            return;
        };
        let message = format!(
            "NATS/1.0\r\nNats-Stream: KV_b\r\nNats-Subject: $KV.b.k\r\nNats-Sequence: {last}\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 0\r\n\r\n"
        );
        self.headers(reply, &message).await;
        let end = format!(
            "NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: {last}\r\nNats-UpTo-Sequence: {seen}\r\n\r\n"
        );
        self.headers(reply, &end).await;
    }

    async fn made(&mut self, reply: &str, on: &str, says: &[Say]) {
        let pending = matches!(says, [Say::Message(_), ..]);
        let made =
            json!({ "name": "c", "num_pending": u64::from(pending), "cluster": { "leader": on } });
        self.message(reply, reply, "", &made.to_string()).await;
    }

    async fn deliver(&mut self, to: &str, says: &[Say]) {
        let mut sent = 0;
        for say in says {
            match say {
                Say::Message(sequence) => {
                    sent += 1;
                    let place = format!("$JS.ACK.KV_b.c.1.{sequence}.{sent}.0.0");
                    self.message(to, "$KV.b.k", &place, "1").await;
                }
                Say::At(sequence, times) => {
                    let status = format!(
                        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: {sent}\r\nNats-Last-Stream: {sequence}\r\n\r\n"
                    );
                    for _ in 0..*times {
                        self.headers(to, &status).await;
                        // As often as a server would; nothing waits for this.
                        tokio::time::sleep(READ_HEARTBEAT / 5).await;
                    }
                }
            }
        }
    }

    /// To those who listen to the one, with the subject of the other.
    async fn message(&mut self, to: &str, subject: &str, reply: &str, body: &str) {
        let (number, length) = (self.number(to), body.len());
        let text = format!("MSG {subject} {number} {reply} {length}\r\n{body}\r\n");
        self.write(&text).await;
    }

    async fn headers(&mut self, to: &str, headers: &str) {
        let (number, length) = (self.number(to), headers.len());
        let text = format!("HMSG {to} {number} {length} {length}\r\n{headers}\r\n");
        self.write(&text).await;
    }

    fn number(&self, to: &str) -> &str {
        let mut subscriptions = self.subscriptions.iter().rev();
        let found = subscriptions.find(|(subject, _)| to.starts_with(subject.as_str()));
        &found.expect("a subscription").1
    }

    async fn write(&mut self, text: &str) {
        // The client may have gone.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }
}

use Say::{At, Message};

#[tokio::test]
async fn what_a_replica_that_lags_has_is_not_taken_for_all_there_is() {
    let consumer = open(&[(
        "b",
        &[Message(3), At(3, 2), Message(5), At(5, 1), At(LAST, 1)],
    )]);
    assert_eq!(initial(consumer.await).await, [3, 5]);
}

#[tokio::test]
async fn a_replica_that_stays_behind_is_left_for_another_one() {
    let consumer = open(&[("b", &[Message(3), At(3, 12)]), ("a", &[Message(5)])]);
    assert_eq!(initial(consumer.await).await, [3, 5]);
    let consumer = open(&[("b", &[At(0, 12)]), ("a", &[Message(5)])]);
    assert_eq!(initial(consumer.await).await, [5]);
}

#[tokio::test]
async fn what_the_leader_has_is_all_there_is() {
    let consumer = open(&[("a", &[Message(3)])]);
    assert_eq!(initial(consumer.await).await, [3]);
    let consumer = open(&[("a", &[])]);
    assert_eq!(initial(consumer.await).await, [0; 0]);
}

#[tokio::test]
async fn what_others_say_to_be_all_is_all_without_a_heartbeat() {
    let leader = Some(3);
    let replica = Some((3, LAST));
    let consumer = open_beside(Others { leader, replica }, &[("b", &[Message(3)])]);
    assert_eq!(initial(consumer.await).await, [3]);
    let consumer = open_beside(Others::default(), &[("b", &[])]);
    assert_eq!(initial(consumer.await).await, [0; 0]);
}

#[tokio::test]
async fn others_that_lag_or_have_more_prove_nothing() {
    let leader = Some(5);
    for replica in [(3, 4), (5, LAST)] {
        let others = Others {
            leader,
            replica: Some(replica),
        };
        let says: Script = &[("b", &[Message(3), At(3, 2), Message(5), At(LAST, 1)])];
        assert_eq!(initial(open_beside(others, says).await).await, [3, 5]);
    }
}
