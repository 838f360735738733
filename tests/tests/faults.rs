//! What services, callers, stores and writers do when the server itself fails.

use async_nats::jetstream;
use futures_util::StreamExt as _;
use nats_service::{Operation, Server, ShutdownError, WatchEvent, nats_service};
use nats_service_testkit::TestCluster;
use nats_service_tests::desk::{self, Act, KeeperClient, Task, doing, task};
use nats_service_tests::{Nats, PATIENCE, soon, until};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A caller that calls on, whatever happens, and remembers the answers it got.
struct Caller {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Task>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Caller {
    fn start(client: KeeperClient, next: impl Fn(usize) -> Task + Send + 'static) -> Self {
        let (stop, answers) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<Vec<Task>>>::default(),
        );
        let (until, got) = (stop.clone(), answers.clone());
        let task = tokio::spawn(async move {
            for number in 0.. {
                if until.load(SeqCst) {
                    return;
                }
                let call = client
                    .keep(next(number))
                    .timeout(Duration::from_millis(300));
                // Whether a call without an answer was handled is unknown, so nothing follows from it.
                if let Ok(answer) = call.await {
                    got.lock().unwrap().push(answer);
                }
            }
        });
        Self {
            stop,
            answers,
            task,
        }
    }

    fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    async fn until_more(&self, more: usize) {
        let before = self.count();
        until("calls are answered", async || self.count() >= before + more).await;
    }

    async fn end(self) -> Vec<Task> {
        self.stop.store(true, SeqCst);
        self.task.await.unwrap();
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

#[tokio::test]
async fn after_kills_everything_comes_back_by_itself_and_every_answer_given_is_kept() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let stores = client.stores().unwrap();
    let mut watch = stores.keep().watch().await.unwrap();
    let seen = Arc::<Mutex<HashSet<String>>>::default();
    let sees = seen.clone();
    let watcher = tokio::spawn(async move {
        while let Some(event) = watch.next().await {
            // What a watch says while it has no connection is its own tests' business.
            if let Ok(WatchEvent::Change(change)) = event {
                sees.lock().unwrap().insert(change.key);
            }
        }
    });
    let caller = Caller::start(client.clone(), |number| task(&number.to_string()));
    for _ in 0..3 {
        caller.until_more(100).await;
        nats.server.kill().await.unwrap();
        nats.server.restart().await.unwrap();
    }
    caller.until_more(100).await;
    let given = caller.end().await;
    let report = soon("the stop", keeper.running.shutdown(PATIENCE)).await;
    assert!(report.expect("nothing is left").unwritten.is_empty());
    for answer in &given {
        let entry = stores.keep().at(&answer.id).unwrap().get().await.unwrap();
        assert_eq!(entry.expect("it is kept").value(), answer);
    }
    until("the watch sees every answer", async || {
        let seen = seen.lock().unwrap();
        given
            .iter()
            .all(|answer| seen.contains(&format!("task.{}", answer.id)))
    })
    .await;
    watcher.abort();
}

#[tokio::test]
async fn through_kills_an_old_value_of_a_key_never_comes_back() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let caller = Caller::start(client.clone(), |_| doing("same", Act::Count, ""));
    let key = client.stores().unwrap().keep().at("same").unwrap();
    let number = |text: &str| text.parse::<usize>().unwrap();
    for _ in 0..4 {
        caller.until_more(60).await;
        nats.server.kill().await.unwrap();
        nats.server.restart().await.unwrap();
        // The history is short enough to have come from around the kill.
        caller.until_more(20).await;
        let history = loop {
            if let Ok(history) = key.history().await {
                break history;
            }
        };
        let values: Vec<_> = history
            .iter()
            .map(|change| match &change.operation {
                Operation::Put(task) => number(&task.text),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(values.is_sorted(), "{values:?}");
    }
    let given = caller.end().await;
    soon("the stop", keeper.running.shutdown(PATIENCE))
        .await
        .expect("nothing is left");
    let last = key.get().await.unwrap().unwrap();
    let last_given = given.iter().map(|answer| number(&answer.text)).max();
    assert!(Some(number(&last.value().text)) >= last_given);
}

#[tokio::test]
async fn a_server_that_hangs_holds_calls_up_and_loses_no_answer() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let caller = Caller::start(client.clone(), |number| task(&number.to_string()));
    for _ in 0..2 {
        caller.until_more(100).await;
        nats.server.pause().await.unwrap();
        let before = caller.count();
        // Long enough that calls run into their time-out.
        let late = client
            .keep(task("late"))
            .timeout(Duration::from_millis(700))
            .await;
        assert!(late.is_err() && caller.count() <= before + 1);
        nats.server.resume().await.unwrap();
    }
    caller.until_more(100).await;
    let given = caller.end().await;
    soon("the stop", keeper.running.shutdown(PATIENCE))
        .await
        .expect("nothing is left");
    let kept = client.stores().unwrap().keep();
    for answer in given {
        assert!(
            kept.at(&answer.id).unwrap().get().await.unwrap().is_some(),
            "{}",
            answer.id
        );
    }
}

#[tokio::test]
async fn a_stop_without_a_server_ends_soon_and_hands_over_what_is_not_stored() {
    let nats = Nats::start().await;
    let keeper = desk::keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone());
    nats.js.delete_key_value("kept").await.unwrap();
    for number in 0..5 {
        client.keep(task(&number.to_string())).await.unwrap();
    }
    nats.server.kill().await.unwrap();
    until("the connection is known to be gone", async || {
        nats.client.connection_state() != async_nats::connection::State::Connected
    })
    .await;
    let begin = Instant::now();
    let stopped = keeper.running.shutdown(Duration::from_secs(1)).await;
    let ShutdownError(report) = stopped.unwrap_err();
    assert_eq!((report.unwritten.len(), report.cut_short), (5, 0));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

/// A service whose bucket has three copies.
#[nats_service(timeout = "20s")]
pub trait Trio {
    /// Kept after the reply.
    #[kv_store(bucket = "trio", key = "t.<id>", history = 5, replicas = 3)]
    async fn save(&self, id: u32) -> u32;
}

struct Three(AtomicUsize);

impl Trio for Three {
    async fn save(&self, id: u32) -> u32 {
        self.0.fetch_add(1, SeqCst);
        id
    }
}

#[tokio::test]
async fn while_two_of_three_servers_are_down_calls_are_answered_and_what_was_answered_is_stored_later()
 {
    let cluster = TestCluster::builder()
        .advertise(false)
        .start()
        .await
        .unwrap();
    let url = cluster.server(0).url();
    let nats = async_nats::connect(url).await.unwrap();
    let server = Server::new(nats.clone())
        .with_jetstream(jetstream::new(nats))
        .serve(TrioServer::new(Three(AtomicUsize::new(0))));
    let running = soon("a start", server.start()).await.unwrap();
    let nats = async_nats::connect(url).await.unwrap();
    let client = TrioClient::new(nats.clone()).with_jetstream(jetstream::new(nats));
    for id in 0..20 {
        client.save(id).await.unwrap();
    }
    for other in [1, 2] {
        cluster.server(other).kill().await.unwrap();
    }
    for id in 20..200 {
        assert_eq!(soon("an answer", client.save(id)).await.unwrap(), id);
    }
    for other in [1, 2] {
        cluster.server(other).restart().await.unwrap();
    }
    cluster.wait_ready().await.unwrap();
    soon("the stop", running.shutdown(PATIENCE))
        .await
        .expect("nothing is left");
    let saved = client.stores().unwrap().save();
    for id in 0..200 {
        let key = saved.at(id).unwrap();
        // A direct get may be answered by a copy that is behind.
        until(
            "it is stored",
            async || matches!(key.get().await, Ok(Some(entry)) if *entry.value() == id),
        )
        .await;
    }
}
