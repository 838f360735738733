//! Callers, a watcher, and some who contend for one key; and what each of them was told.

use super::history::{Answer, Grant, History, LOCK};
use super::{BUCKET, CALL, Count, KEYS, LedgerClient, WRITES};
use crate::until;
use async_nats::jetstream;
use futures_util::StreamExt as _;
use nats_service::{Operation, ReadLevel, StoreError, WatchEvent};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::task::JoinHandle;

const CONTENDERS: usize = 3;
/// Between two attempts for it, so that its history is not all there is.
const PAUSE: Duration = Duration::from_millis(200);

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
                    let key = (turn / (KEYS * WRITES) * KEYS + turn % KEYS).to_string();
                    let (kind, call) = match first {
                        true => ("first", client.first(&key)),
                        false => ("later", client.later(&key)),
                    };
                    // Of a call without an answer nothing is known, so nothing follows from it.
                    let Ok(count) = call.timeout(CALL).await else {
                        continue;
                    };
                    history.told().answers.push(Answer {
                        key: format!("{kind}.{key}"),
                        number: count.number,
                        by: count.by,
                    });
                    answers.fetch_add(1, SeqCst);
                    // A steady load, and no flood.
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
                        by: 0,
                    };
                    let outcome = match revision {
                        0 => key.create(&next).await,
                        revision => key.update(&next, revision).await,
                    };
                    match outcome {
                        Ok(own) => history.told().granted.push(Grant {
                            expected: revision,
                            revision: own,
                            number: next.number,
                        }),
                        Err(StoreError::Conflict { .. }) => history.told().refused += 1,
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
                match event {
                    Ok(WatchEvent::Change(change)) => {
                        if let Operation::Put(count) = &change.operation {
                            sees.told().saw(change.key, change.revision, count);
                        }
                    }
                    // Of a history that was cut meanwhile, it says so; what is kept it must have brought all the same.
                    Ok(WatchEvent::InitialDone | WatchEvent::Gap { .. }) => {}
                    other => sees.told().wrong.push(format!("the watch said {other:?}")),
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
        let highest: BTreeMap<String, u64> = {
            let told = self.history.told();
            // Of every key, the last one that has to come.
            let last = told.acknowledged().map(|a| (a.key.clone(), a.number));
            last.collect()
        };
        until("the watch sees what was acknowledged", async || {
            let told = self.history.told();
            highest.iter().all(|(key, number)| {
                let mut seen = told.seen.iter().rev();
                seen.any(|(of, seen)| of == key && seen.number >= *number)
            })
        })
        .await;
        self.watcher.abort();
    }
}
