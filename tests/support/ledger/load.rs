//! Callers, a watcher, and some who contend for one key; and what each of them was told.

use super::{BUCKET, CALL, Count, KEYS, LedgerClient};
use crate::until;
use async_nats::jetstream;
use futures_util::StreamExt as _;
use nats_service::{Operation, ReadLevel, StoreError, WatchEvent};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The key that is contended for.
pub(super) const LOCK: &str = "lock";
const CONTENDERS: usize = 3;
/// Between two attempts for it, so that its history is not all there is.
const PAUSE: Duration = Duration::from_millis(200);

/// What everybody was told.
#[derive(Debug, Default)]
pub(super) struct History {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    /// By key of the bucket: the highest number that a caller was answered with, of those that have to be there.
    pub(super) acknowledged: BTreeMap<String, u64>,
    /// Compare-and-sets that were granted: expected revision, number.
    pub(super) granted: Vec<(u64, u64)>,
    /// Those of which nothing is known.
    pub(super) unknown: u64,
    /// What the watch brought, in order: revision, key, number.
    pub(super) seen: Vec<(u64, String, u64)>,
    /// How many answers.
    pub(super) answers: usize,
}

impl History {
    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no panic")
    }

    fn acknowledge(&self, key: String, number: u64) {
        let mut told = self.told();
        told.answers += 1;
        let highest = told.acknowledged.entry(key).or_default();
        *highest = (*highest).max(number);
    }

    /// Answers that are written later need not be there any more.
    pub(super) fn forgive_later(&self) {
        let mut told = self.told();
        told.acknowledged
            .retain(|key, _| !key.starts_with("later."));
    }
}

pub(super) struct Load {
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    watcher: JoinHandle<()>,
    answers: Arc<AtomicUsize>,
}

impl Load {
    pub(super) async fn start(urls: Vec<String>, history: Arc<History>) -> Self {
        let (stop, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let nats = async_nats::connect(urls).await.expect("a connection");
        let js = jetstream::new(nats.clone());
        let client = LedgerClient::new(nats).with_jetstream(js.clone());
        let store = nats_service::KvStore::<Count>::bind(js, BUCKET).expect("a name");
        let mut tasks = Vec::new();
        for first in [false, true] {
            let (client, history) = (client.clone(), history.clone());
            let (stop, answers) = (stop.clone(), answers.clone());
            tasks.push(tokio::spawn(async move {
                for turn in 0.. {
                    if stop.load(SeqCst) {
                        return;
                    }
                    let key = (turn % KEYS).to_string();
                    let (kind, call) = match first {
                        true => ("first", client.first(&key)),
                        false => ("later", client.later(&key)),
                    };
                    // Of a call without an answer nothing is known, so nothing follows from it.
                    let Ok(count) = call.timeout(CALL).await else {
                        continue;
                    };
                    history.acknowledge(format!("{kind}.{key}"), count.number);
                    answers.fetch_add(1, SeqCst);
                    // A steady load, and no flood: the history of a key must last until the end.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }));
        }
        for _ in 0..CONTENDERS {
            let key = store.key(LOCK).expect("a key");
            let (history, stop) = (history.clone(), stop.clone());
            tasks.push(tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    tokio::time::sleep(PAUSE).await;
                    let Ok(read) = key.read(ReadLevel::Leader).await else {
                        continue;
                    };
                    let (revision, number) =
                        read.map_or((0, 0), |entry| (entry.revision, entry.value().number));
                    let next = Count {
                        key: LOCK.to_owned(),
                        number: number + 1,
                    };
                    let outcome = match revision {
                        0 => key.create(&next).await,
                        revision => key.update(&next, revision).await,
                    };
                    match outcome {
                        Ok(_) => history.told().granted.push((revision, next.number)),
                        Err(StoreError::Conflict { .. }) => {}
                        Err(_) => history.told().unknown += 1,
                    }
                }
            }));
        }
        let sees = history.clone();
        let watcher = tokio::spawn(async move {
            let mut watch = None;
            while watch.is_none() {
                watch = store.watch().include_history().await.ok();
            }
            let mut watch = watch.expect("there is one");
            while let Some(event) = watch.next().await {
                // What it says while it has no connection is its own tests' business: it goes on by itself.
                let Ok(WatchEvent::Change(change)) = event else {
                    continue;
                };
                if let Operation::Put(count) = change.operation {
                    let seen = (change.revision, change.key, count.number);
                    sees.told().seen.push(seen);
                }
            }
        });
        Self {
            history,
            stop,
            tasks,
            watcher,
            answers,
        }
    }

    /// Waits until so many more calls were answered.
    pub(super) async fn answered(&self, more: usize) {
        let before = self.answers.load(SeqCst);
        until("calls are answered", async || {
            self.answers.load(SeqCst) >= before + more
        })
        .await;
    }

    /// Ends everything but the watch, which is given time to see the end.
    pub(super) async fn stop(self) {
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        let highest = self.history.told().acknowledged.clone();
        until("the watch sees what was acknowledged", async || {
            let told = self.history.told();
            highest.iter().all(|(key, number)| {
                let mut seen = told.seen.iter().rev();
                seen.any(|(_, of, seen)| of == key && seen >= number)
            })
        })
        .await;
        self.watcher.abort();
    }
}
