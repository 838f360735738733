//! Several keys at once: all or nothing, whoever is killed and whoever is faster.

use async_nats::connection::State;
use async_nats::jetstream;
use nats_service::{KvStore, Outcome, StoreError, TransactionError};
use nats_service::{Server, nats_service};
use nats_service_testkit::{Proxy, TestCluster, TestServer};
use nats_service_tests::{Nats, processed, soon, too_old, until};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn stream(replicas: usize, atomic: bool) -> jetstream::stream::Config {
    jetstream::stream::Config {
        name: "KV_b".to_owned(),
        subjects: vec!["$KV.b.>".to_owned()],
        max_messages_per_subject: 10,
        num_replicas: replicas,
        allow_rollup: true,
        allow_direct: true,
        deny_delete: true,
        allow_atomic_publish: atomic,
        ..Default::default()
    }
}

async fn bucket(nats: &Nats) -> KvStore<u64> {
    nats.js
        .create_stream(stream(1, true))
        .await
        .expect("a bucket");
    KvStore::bind(nats.js.clone(), "b").expect("a store")
}

async fn value(store: &KvStore<u64>, key: &str) -> Option<u64> {
    let entry = store.key(key).unwrap().get().await.expect("a read");
    entry.map(|entry| entry.into_value())
}

#[tokio::test]
async fn all_is_written_with_revisions_in_a_row_whatever_the_types() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let texts = KvStore::<String>::bind(nats.js.clone(), "b").unwrap();
    let (a, b, c, d) = (
        store.key("a").unwrap(),
        store.key("b").unwrap(),
        texts.key("c").unwrap(),
        store.key("d").unwrap(),
    );
    let first = a.put(&1).await.unwrap();
    d.put(&4).await.unwrap();
    b.create(&1).await.unwrap();
    let deleted = b.delete().await.unwrap();
    let committed = store
        .transaction()
        .update(&a, &2, first)
        // Over the mark of a deletion, too.
        .create(&b, &2)
        .put(&c, &"text".to_owned())
        .purge(&d)
        .commit()
        .await
        .unwrap();
    let expected = ["a", "b", "c", "d"].into_iter().zip(deleted + 1..);
    assert!(committed.writes().eq(expected));
    assert_eq!(
        (committed.revision_of("c"), committed.revision()),
        (Some(deleted + 3), deleted + 4)
    );
    assert_eq!(
        (value(&store, "a").await, value(&store, "b").await),
        (Some(2), Some(2))
    );
    assert_eq!(c.get().await.unwrap().unwrap().value(), "text");
    assert_eq!(value(&store, "d").await, None);
    assert_eq!(
        d.history().await.unwrap().len(),
        1,
        "a purge takes the history along"
    );
    let none = store.transaction().commit().await.unwrap();
    assert_eq!((none.writes().count(), none.revision()), (0, 0));
}

#[tokio::test]
async fn a_conflict_names_every_key_and_its_revision_and_nothing_is_written() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let (a, b, c, d) = (
        store.key("a").unwrap(),
        store.key("b").unwrap(),
        store.key("c").unwrap(),
        store.key("d").unwrap(),
    );
    let old = a.put(&1).await.unwrap();
    let new = a.put(&2).await.unwrap();
    let there = b.put(&1).await.unwrap();
    let refused = store
        .transaction()
        .put(&c, &9)
        .update(&a, &9, old)
        .create(&b, &9)
        .delete_if(&d, 7)
        .commit()
        .await;
    match refused {
        Err(TransactionError::Conflict { conflicts }) => {
            let found: Vec<_> = conflicts
                .iter()
                .map(|c| (c.key.as_str(), c.expected, c.current))
                .collect();
            assert_eq!(found, [("a", old, new), ("b", 0, there), ("d", 7, 0)]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(nats.messages("KV_b", "$KV.b.>").await, 3);
    assert_eq!(value(&store, "c").await, None);
}

#[tokio::test]
async fn what_cannot_be_a_transaction_says_why_and_writes_nothing() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let a = store.key("a").unwrap();
    let other = KvStore::<u64>::bind(nats.js.clone(), "other")
        .unwrap()
        .key("a")
        .unwrap();
    let refused = store
        .transaction()
        .put(&a, &1)
        .put(&other, &1)
        .commit()
        .await
        .unwrap_err();
    assert!(
        matches!(refused, TransactionError::OtherBucket { .. }),
        "{refused}"
    );
    let refused = store
        .transaction()
        .put(&a, &1)
        .delete(&a)
        .commit()
        .await
        .unwrap_err();
    assert!(
        matches!(refused, TransactionError::KeyTwice { .. }),
        "{refused}"
    );
    let keys: Vec<_> = (0..=1000)
        .map(|n| store.key(format!("k.{n}")).unwrap())
        .collect();
    let all = |keys: &[nats_service::KvKey<u64>]| {
        keys.iter().fold(store.transaction(), |transaction, key| {
            transaction.put(key, &1)
        })
    };
    let refused = all(&keys).commit().await.unwrap_err();
    assert!(
        matches!(
            refused,
            TransactionError::TooMany {
                count: 1001,
                most: 1000
            }
        ),
        "{refused}"
    );
    let large = KvStore::<String>::bind(nats.js.clone(), "b")
        .unwrap()
        .key("large")
        .unwrap();
    let refused = store
        .transaction()
        .put(&a, &1)
        .put(&large, &"x".repeat(2 << 20))
        .commit()
        .await;
    assert!(
        matches!(refused, Err(TransactionError::Store(_))),
        "{refused:?}"
    );
    assert_eq!(nats.messages("KV_b", "$KV.b.>").await, 0);

    let committed = all(&keys[..1000]).commit().await.unwrap();
    assert_eq!(
        (committed.writes().count(), committed.revision()),
        (1000, 1000)
    );

    nats.js.update_stream(stream(1, false)).await.unwrap();
    let refused = store.transaction().put(&a, &1).commit().await.unwrap_err();
    assert!(
        matches!(refused, TransactionError::NotAllowed { .. }),
        "{refused}"
    );
    let gone = KvStore::<u64>::bind(nats.js.clone(), "gone").unwrap();
    let refused = gone
        .transaction()
        .put(&gone.key("a").unwrap(), &1)
        .commit()
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            TransactionError::Store(StoreError::BucketNotFound { .. })
        ),
        "{refused}"
    );
}

/// A server holds no more than 50 batches of a bucket that are not committed yet.
#[tokio::test]
async fn a_transaction_waits_for_a_server_that_holds_too_many_others_and_then_says_so() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let (a, b) = (store.key("a").unwrap(), store.key("b").unwrap());
    let both = || store.transaction().put(&a, &1).put(&b, &1);
    let others = async |commit: bool| {
        for i in 0..50 {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Batch-Id", format!("other-{i}"));
            headers.insert("Nats-Batch-Sequence", if commit { "2" } else { "1" });
            if commit {
                headers.insert("Nats-Batch-Commit", "1");
            }
            let subject = format!("$KV.b.other.{i}");
            let sent = nats
                .client
                .publish_with_headers(subject, headers, "1".into());
            sent.await.unwrap();
        }
        processed(&nats.client).await;
    };
    others(false).await;
    let refused = soon("a refusal", both().commit()).await.unwrap_err();
    let text = refused.to_string();
    match refused {
        TransactionError::Busy => {
            assert!(text.contains("max_inflight_per_stream"), "{text}");
        }
        // 2.12 and 2.13 do not tell one from the other.
        TransactionError::Incomplete => assert!(text.contains("repeat it"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(a.get().await.unwrap().is_none());
    // While it waits, the others come to their end.
    let (committed, ()) = tokio::join!(both().commit(), others(true));
    assert_eq!(committed.unwrap().writes().count(), 2);
}

#[tokio::test]
async fn a_server_that_takes_fewer_writes_says_how_many() {
    if too_old(2).await {
        return;
    }
    let few = |server: nats_service_testkit::TestServerBuilder| {
        server.config("jetstream { limits { batch { max_msgs: 5 } } }")
    };
    let nats = Nats::start_with(few).await;
    let store = bucket(&nats).await;
    for (count, most) in [(5, 5), (6, 5), (7, 5), (1001, 1000)] {
        let keys = (0..count).map(|i| store.key(format!("k.{i}")).unwrap());
        let transaction = keys.fold(store.transaction(), |transaction, key| {
            transaction.put(&key, &1)
        });
        match transaction.commit().await {
            Ok(committed) => assert_eq!((committed.writes().count(), count), (5, 5)),
            Err(error) => {
                let text = format!(
                    "{count} writes are too many for one transaction: the server takes {most}, and nothing was written; split it"
                );
                assert_eq!(error.to_string(), text);
            }
        }
        assert_eq!(nats.messages("KV_b", "$KV.b.>").await, 5);
    }
}

/// Between the look at the bucket and the writes the setting may go: the server then says what the look would have.
#[tokio::test]
async fn a_bucket_that_stops_taking_transactions_takes_none_by_halves() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let js = nats.js.clone();
    let switching = tokio::spawn(async move {
        for on in [false, true].into_iter().cycle() {
            js.update_stream(stream(1, on)).await.unwrap();
        }
    });
    let (mut stored, mut refused) = (0, 0);
    for n in 0.. {
        let (a, b) = (store.key("a").unwrap(), store.key("b").unwrap());
        let both = store.transaction().put(&a, &n).put(&b, &n);
        match both.commit().await {
            Ok(_) => stored = n,
            Err(TransactionError::NotAllowed { .. }) => refused += 1,
            // The first was refused, and the last came after the setting.
            Err(TransactionError::Incomplete) => {}
            Err(other) => panic!("{other:?}"),
        }
        for key in ["a", "b"] {
            assert_eq!(value(&store, key).await.unwrap_or(0), stored);
        }
        if stored > 0 && refused > 20 {
            break;
        }
    }
    switching.abort();
}

/// Rounds of a counter in five keys: whatever happens to the client, all keys are at the same round.
async fn together(store: &KvStore<u64>) -> Option<u64> {
    let mut rounds = Vec::new();
    for key in 0..5 {
        rounds.push(value(store, &format!("k.{key}")).await);
    }
    assert!(
        rounds.windows(2).all(|two| two[0] == two[1]),
        "torn: {rounds:?}"
    );
    rounds[0]
}

/// The same behind what the server has taken so far: a write stands behind that in the bucket.
async fn settled(store: &KvStore<u64>) -> u64 {
    store.key("mark").unwrap().put(&0).await.unwrap();
    together(store).await.unwrap_or(0)
}

/// How many clients the server has. What one of them sent has been taken when it is gone from here.
async fn connections(server: &TestServer) -> u64 {
    let port = server.monitor_port();
    let mut http = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    http.write_all(b"GET /connz HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["num_connections"].as_u64().unwrap()
}

async fn round(store: &KvStore<u64>, n: u64) -> Result<nats_service::Committed, TransactionError> {
    let mut transaction = store.transaction().timeout(Duration::from_secs(1));
    for key in 0..5 {
        transaction = transaction.put(&store.key(format!("k.{key}")).unwrap(), &n);
    }
    transaction.commit().await
}

#[tokio::test]
async fn a_connection_that_breaks_and_a_commit_that_is_dropped_leave_all_or_nothing() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let proxy = Proxy::start(nats.server.url()).await.unwrap();
    let client = async_nats::connect(proxy.url()).await.unwrap();
    let connected = || client.connection_state() == State::Connected;
    let far = KvStore::<u64>::bind(jetstream::new(client.clone()), "b").unwrap();
    let mut last = 0;
    for n in 1..=30_u64 {
        // Somewhere between nothing and everything of it is done.
        let moment = Duration::from_micros(n * 80);
        if n % 3 == 0 {
            let cut = async {
                tokio::time::sleep(moment).await;
                proxy.cut().await.unwrap();
                until("it is noticed", async || !connected()).await;
                proxy.pass().await.unwrap();
            };
            let (outcome, ()) = tokio::join!(round(&far, n), cut);
            match outcome {
                Ok(_) => last = n,
                Err(TransactionError::Unknown(unknown)) => {
                    match soon("the outcome", unknown.find_out()).await.unwrap() {
                        Outcome::Committed(committed) => {
                            last = n;
                            let entry = store.key("k.4").unwrap().get().await.unwrap().unwrap();
                            assert_eq!(committed.revision_of("k.4"), Some(entry.revision));
                        }
                        Outcome::NotCommitted => {}
                        other => panic!("{other:?}"),
                    }
                }
                // The look before it did not come through.
                Err(TransactionError::Store(_) | TransactionError::Incomplete) => {}
                Err(other) => panic!("{other:?}"),
            }
            assert_eq!(settled(&store).await, last);
        } else if tokio::time::timeout(moment, round(&store, n)).await.is_ok() {
            last = n;
        } else {
            // Dropped half-way: committed or not.
            last = settled(&store).await;
        }
    }
    assert!(last > 0);
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
#[ignore = "started by `a_client_that_is_killed_leaves_all_or_nothing`"]
async fn a_client_that_writes_until_it_is_killed() {
    let Ok(url) = std::env::var("TRANSACTION_TEST_URL") else {
        return;
    };
    let client = async_nats::connect(url).await.unwrap();
    let store = KvStore::<u64>::bind(jetstream::new(client), "b").unwrap();
    for n in together(&store).await.unwrap_or(0) + 1.. {
        round(&store, n).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_is_killed_leaves_all_or_nothing() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let store = bucket(&nats).await;
    let mut before = 0;
    for kill in 0..5_u64 {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_client_that_writes_until_it_is_killed",
                "--ignored",
            ])
            .env("TRANSACTION_TEST_URL", nats.server.url())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        until("it writes", async || {
            value(&store, "k.0").await.unwrap_or(0) > before + 20
        })
        .await;
        tokio::time::sleep(Duration::from_micros(300 * kill)).await;
        child.kill().await.unwrap();
        until("its connection is gone", async || {
            connections(&nats.server).await == 1
        })
        .await;
        before = settled(&store).await;
        for key in 0..5 {
            let history = store
                .key(format!("k.{key}"))
                .unwrap()
                .history()
                .await
                .unwrap();
            let values: Vec<_> = history.iter().filter_map(|change| change.value()).collect();
            assert!(
                values.windows(2).all(|two| two[0] + 1 == *two[1]),
                "{values:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_replicated_bucket_grants_a_condition_once() {
    if too_old(2).await {
        return;
    }
    let cluster = TestCluster::start().await.unwrap();
    let client = async_nats::connect(cluster.server(0).url()).await.unwrap();
    let js = jetstream::new(client);
    until("a bucket", async || {
        js.create_stream(stream(3, true)).await.is_ok()
    })
    .await;
    let store = KvStore::<u64>::bind(js, "b").unwrap();
    let (a, b) = (store.key("a").unwrap(), store.key("b").unwrap());
    until("the first write", async || a.put(&0).await.is_ok()).await;
    let mut at = b.put(&0).await.unwrap();
    let mut at_a = a.put(&0).await.unwrap();
    for n in 1..=20 {
        let attempt = || {
            store
                .transaction()
                .update(&a, &n, at_a)
                .update(&b, &n, at)
                .commit()
        };
        let both = tokio::join!(attempt(), attempt());
        let (granted, refused) = match both {
            (Ok(granted), Err(refused)) | (Err(refused), Ok(granted)) => (granted, refused),
            other => panic!("{other:?}"),
        };
        let TransactionError::Conflict { conflicts } = refused else {
            panic!("{refused:?}");
        };
        (at_a, at) = (
            granted.revision_of("a").unwrap(),
            granted.revision_of("b").unwrap(),
        );
        let found: Vec<_> = conflicts
            .iter()
            .map(|c| (c.key.as_str(), c.current))
            .collect();
        assert_eq!(found, [("a", at_a), ("b", at)]);
    }
}

#[nats_service]
trait Ledger {
    #[kv_store(
        bucket = "ledger",
        key = "account.<id>",
        atomic = true,
        write = "before_reply"
    )]
    async fn open(&self, id: String) -> u64;
}

struct Books;

impl Ledger for Books {
    async fn open(&self, _id: String) -> u64 {
        0
    }
}

#[tokio::test]
async fn an_attribute_makes_a_bucket_that_takes_transactions() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let running = server
        .serve(LedgerServer::new(Books))
        .start()
        .await
        .unwrap();
    let client = LedgerClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    for id in ["ada", "bob"] {
        client.open(id.to_owned()).await.unwrap();
    }
    let store = client.stores().unwrap().open();
    let (ada, bob) = (store.at("ada").unwrap(), store.at("bob").unwrap());
    let accounts = KvStore::<u64>::bind(nats.js.clone(), "ledger").unwrap();
    accounts
        .transaction()
        .put(&ada, &7)
        .put(&bob, &8)
        .commit()
        .await
        .unwrap();
    assert_eq!(bob.get().await.unwrap().unwrap().into_value(), 8);
    running.shutdown(Duration::from_secs(10)).await.unwrap();
}
