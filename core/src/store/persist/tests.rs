//! The writer's promises, against a real server that is killed, paused and restarted under it.

use super::*;
use crate::store::bucket::{BucketSettings, provision};
use async_nats::jetstream::stream;
use futures_util::StreamExt as _;
use nats_service_testkit::{TestCluster, TestServer};
use std::collections::BTreeMap;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const MS: Duration = Duration::from_millis(1);

pub(super) struct Bench {
    server: TestServer,
    js: Context,
    writers: Writers,
    writer: Writer,
    failed: Arc<Mutex<Vec<FailedWrite>>>,
}

pub(super) fn settings() -> BucketSettings {
    BucketSettings::new("answers")
}

async fn bench(settings: BucketSettings, limits: WriterLimits) -> Bench {
    bench_of(StoreKind::Kv, settings, limits).await
}

async fn bench_of(kind: StoreKind, settings: BucketSettings, limits: WriterLimits) -> Bench {
    let server = TestServer::start().await.unwrap();
    let js = async_nats::jetstream::new(connect(&server).await);
    let bucket = provision(&js, kind, &settings).await.unwrap();
    let failed = Arc::new(Mutex::new(Vec::new()));
    let seen = failed.clone();
    let hook: FailureHook = Arc::new(move |write| seen.lock().unwrap().push(write.clone()));
    let writers = Writers::new(js.clone(), limits, Some(hook));
    let writer = writers.writer(&bucket).await.unwrap();
    Bench {
        server,
        js,
        writers,
        writer,
        failed,
    }
}

pub(super) async fn connect(server: &TestServer) -> async_nats::Client {
    async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| 20 * MS)
        .connect(server.url())
        .await
        .unwrap()
}

pub(super) fn put(key: impl Into<String>, value: impl Into<String>) -> Write {
    Write {
        key: key.into(),
        action: WriteAction::Put(Bytes::from(value.into())),
        content_type: "application/json",
        trace: Default::default(),
    }
}

/// Waits for something that nothing tells about.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(MS).await;
    }
}

/// All revisions of all keys, in order.
pub(super) async fn revisions(js: &Context) -> BTreeMap<String, Vec<String>> {
    let mut stream = js.get_stream("KV_answers").await.unwrap();
    let count = stream.info().await.unwrap().state.messages;
    let mut revisions = BTreeMap::<String, Vec<String>>::new();
    if count == 0 {
        return revisions;
    }
    let consumer = stream
        .create_consumer(async_nats::jetstream::consumer::pull::OrderedConfig::default())
        .await
        .unwrap();
    let mut messages = consumer.messages().await.unwrap();
    for _ in 0..count {
        let message = messages.next().await.unwrap().unwrap();
        let key = message.subject.strip_prefix("$KV.answers.").unwrap();
        let value = String::from_utf8(message.payload.to_vec()).unwrap();
        revisions.entry(key.to_owned()).or_default().push(value);
    }
    revisions
}

impl Bench {
    fn submit(&self, write: Write) {
        let permit = self.writer.try_reserve().unwrap();
        self.writer.submit(write, permit);
    }

    async fn wait(&self, write: Write, within: Duration) -> Result<u64, WriteError> {
        let permit = self.writer.try_reserve().unwrap();
        let deadline = Instant::now() + within;
        self.writer.submit_and_wait(write, permit, deadline).await
    }

    async fn drain(&self) -> DrainReport {
        self.writers.drain(Instant::now() + PATIENCE).await
    }

    async fn stream(&self) -> stream::Stream {
        self.js.get_stream("KV_answers").await.unwrap()
    }

    async fn revisions(&self) -> BTreeMap<String, Vec<String>> {
        revisions(&self.js).await
    }

    fn failed(&self) -> Vec<FailedWrite> {
        self.failed.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn every_accepted_write_is_stored_with_its_content_type_and_its_id() {
    let bench = bench(settings(), WriterLimits::default()).await;
    for i in 0..5000 {
        bench.submit(put(format!("k.{i}"), i.to_string()));
    }
    bench.submit(Write {
        action: WriteAction::Delete,
        ..put("k.7", "")
    });
    let report = bench.drain().await;
    assert_eq!(report.unwritten.len(), 0);
    let kv = bench.js.get_key_value("answers").await.unwrap();
    assert_eq!(kv.get("k.4999").await.unwrap().unwrap(), "4999");
    assert_eq!(kv.get("k.7").await.unwrap(), None);
    let raw = bench.stream().await;
    let raw = raw.get_last_raw_message_by_subject("$KV.answers.k.1").await;
    let headers = raw.unwrap().headers;
    assert_eq!(
        headers.get("Content-Type").unwrap().as_str(),
        "application/json"
    );
    assert!(headers.get("Nats-Msg-Id").is_some());
    let stats = bench.writer.stats();
    assert_eq!(
        (stats.queued, stats.in_flight, stats.bytes_pending),
        (0, 0, 0)
    );
    assert_eq!(
        (stats.written + stats.superseded, stats.given_up),
        (5001, 0)
    );
    assert_eq!(stats.oldest_pending, None);
    assert_eq!(bench.writer.try_reserve().unwrap_err(), Full::Closed);
}

#[tokio::test]
async fn a_server_that_is_killed_under_ten_thousand_writes_loses_and_repeats_and_disorders_none() {
    let several = settings().history(10);
    let bench = bench(several, WriterLimits::default()).await;
    for version in 0..5 {
        for key in 0..2000 {
            bench.submit(put(format!("k{key}"), format!("v{version}")));
        }
    }
    until("some are written", || bench.writer.stats().written > 500).await;
    bench.server.kill().await.unwrap();
    let written = bench.writer.stats().written;
    assert!(written < 10_000, "killed too late to mean anything");
    bench.server.restart().await.unwrap();
    let report = bench.drain().await;
    assert_eq!(report.unwritten.len(), 0);
    let revisions = bench.revisions().await;
    assert_eq!(revisions.len(), 2000);
    for (key, values) in revisions {
        assert_eq!(values, ["v0", "v1", "v2", "v3", "v4"], "{key}");
    }
    assert_eq!(bench.failed().len(), 0);
}

#[tokio::test]
async fn an_old_value_never_comes_back_when_the_bucket_is_away_for_a_while() {
    let several = settings().history(10);
    let bench = bench(several.clone(), WriterLimits::default()).await;
    bench.js.delete_stream("KV_answers").await.unwrap();
    for version in 0..5 {
        bench.submit(put("a", format!("v{version}")));
    }
    until("a write was repeated", || bench.writer.stats().retried >= 2).await;
    provision(&bench.js, StoreKind::Kv, &several).await.unwrap();
    bench.drain().await;
    let revisions = bench.revisions().await;
    assert_eq!(revisions["a"], ["v0", "v1", "v2", "v3", "v4"]);
}

#[tokio::test]
async fn a_server_that_stands_still_gets_every_write_once() {
    let several = settings().history(10);
    let limits = WriterLimits {
        ack_timeout: 200 * MS,
        ..WriterLimits::default()
    };
    let bench = bench(several, limits).await;
    bench.server.pause().await.unwrap();
    for version in 0..5 {
        bench.submit(put("a", format!("v{version}")));
        bench.submit(put("b", format!("v{version}")));
    }
    until("writes were repeated", || bench.writer.stats().retried >= 4).await;
    assert!(bench.writer.stats().oldest_pending.unwrap() >= 100 * MS);
    bench.server.resume().await.unwrap();
    bench.drain().await;
    for (_, values) in bench.revisions().await {
        assert_eq!(values, ["v0", "v1", "v2", "v3", "v4"]);
    }
}

#[tokio::test]
async fn only_the_newest_of_what_waits_is_written_where_only_the_last_is_kept() {
    let bench = bench(settings(), WriterLimits::default()).await;
    bench.server.kill().await.unwrap();
    let client = bench.js.client();
    until("the connection is gone", || {
        client.connection_state() != async_nats::connection::State::Connected
    })
    .await;
    for version in 0..100 {
        bench.submit(put("a", format!("v{version}")));
    }
    until("they are superseded", || {
        bench.writer.stats().superseded == 99
    })
    .await;
    bench.server.restart().await.unwrap();
    bench.drain().await;
    assert_eq!(bench.revisions().await["a"], ["v99"]);
}

#[tokio::test]
async fn a_writer_that_is_full_gives_no_room_until_the_server_is_back() {
    for limits in [
        WriterLimits {
            max_writes: 10,
            ..WriterLimits::default()
        },
        WriterLimits {
            max_bytes: 1000,
            ..WriterLimits::default()
        },
    ] {
        let bench = bench(settings(), limits).await;
        bench.server.pause().await.unwrap();
        for i in 0..10 {
            match bench.writer.try_reserve() {
                Ok(permit) => bench
                    .writer
                    .submit(put(format!("k{i}"), "v".repeat(100)), permit),
                Err(full) => assert_eq!(full, Full::Full),
            }
        }
        assert_eq!(bench.writer.reserve(50 * MS).await.unwrap_err(), Full::Full);
        let late = tokio::spawn({
            let writer = bench.writer.clone();
            async move { writer.reserve(PATIENCE).await }
        });
        bench.server.resume().await.unwrap();
        let permit = late.await.unwrap().unwrap();
        bench.writer.submit(put("late", "v"), permit);
        assert_eq!(bench.drain().await.unwritten.len(), 0);
        assert!(bench.revisions().await.contains_key("late"));
    }
}

#[tokio::test]
async fn a_drain_reports_what_could_not_be_written_with_its_value() {
    let bench = bench(settings(), WriterLimits::default()).await;
    assert!(bench.wait(put("stored", "v"), PATIENCE).await.is_ok());
    bench.server.pause().await.unwrap();
    bench.submit(put("a", "in flight"));
    until("it is in flight", || bench.writer.stats().in_flight == 1).await;
    bench.submit(put("a", "behind it"));
    let held = bench.writer.try_reserve().unwrap();
    let report = bench.writers.drain(Instant::now() + 100 * MS).await;
    assert_eq!(report.written, 0);
    let [first, second] = &report.unwritten[..] else {
        panic!("{report:?}");
    };
    assert_eq!(first.value.as_deref(), Some(&b"in flight"[..]));
    assert!(matches!(first.error, WriteError::Unknown { .. }));
    assert_eq!(second.value.as_deref(), Some(&b"behind it"[..]));
    assert!(matches!(second.error, WriteError::NotStored { .. }));
    assert_eq!((&*second.bucket, &*second.key), ("answers", "a"));
    assert_eq!(bench.failed().len(), 2);
    // A permit that comes too late is no excuse to lose the value silently.
    bench.writer.submit(put("b", "late"), held);
    assert_eq!(bench.failed()[2].error, WriteError::Closed);
    assert!(bench.drain().await.unwritten.is_empty());
}

#[tokio::test]
async fn a_value_that_the_bucket_refuses_goes_to_the_hook_and_the_others_are_stored() {
    let small = settings().max_value_size(1000).history(10);
    let bench = bench(small, WriterLimits::default()).await;
    bench.submit(put("a", "before"));
    bench.submit(put("a", "x".repeat(2000)));
    bench.submit(put("b", "x".repeat(2_000_000)));
    bench.submit(put("c d", "v"));
    bench.submit(put("a", "after"));
    let awaited = bench.wait(put("d", "x".repeat(2000)), PATIENCE).await;
    assert!(matches!(
        awaited,
        Err(WriteError::Refused { code: 10054, .. })
    ));
    bench.drain().await;
    let mut failed = bench.failed();
    failed.sort_by(|a, b| a.key.cmp(&b.key));
    let keys: Vec<_> = failed.iter().map(|failed| &*failed.key).collect();
    assert_eq!(
        keys,
        ["a", "b", "c d"],
        "who waits is told, and not the hook"
    );
    assert_eq!(failed[0].value.as_ref().unwrap().len(), 2000);
    assert!(failed.iter().all(|failed| failed.attempts == 1));
    assert_eq!(bench.revisions().await["a"], ["before", "after"]);
    assert_eq!(bench.writer.stats().given_up, 4);
}

#[tokio::test]
async fn a_full_bucket_keeps_its_writes_waiting_until_there_is_room() {
    let full = settings().max_bytes(10_000);
    let bench = bench(full, WriterLimits::default()).await;
    for i in 0..10 {
        bench.submit(put(format!("k{i}"), "x".repeat(2000)));
    }
    until("the bucket is full", || bench.writer.stats().retried > 3).await;
    assert_eq!(bench.writer.stats().given_up, 0);
    let roomy = settings()
        .max_bytes(100_000)
        .provision(crate::store::Provision::Update);
    provision(&bench.js, StoreKind::Kv, &roomy).await.unwrap();
    assert_eq!(bench.drain().await.unwritten.len(), 0);
    assert_eq!(bench.revisions().await.len(), 10);
}

#[tokio::test]
async fn a_write_before_the_reply_brings_its_revision_or_says_what_is_known_at_the_deadline() {
    let bench = bench(settings(), WriterLimits::default()).await;
    assert_eq!(bench.wait(put("a", "1"), PATIENCE).await, Ok(1));
    bench.server.pause().await.unwrap();
    let (first, second) = tokio::join!(
        bench.wait(put("a", "2"), 200 * MS),
        bench.wait(put("a", "3"), 100 * MS),
    );
    assert!(
        matches!(first, Err(WriteError::Unknown { .. })),
        "{first:?}"
    );
    assert!(
        matches!(second, Err(WriteError::NotStored { .. })),
        "{second:?}"
    );
    bench.server.resume().await.unwrap();
    // "2" was on its way, and arrives; "3" never set out.
    assert_eq!(bench.wait(put("a", "4"), PATIENCE).await, Ok(3));
    assert_eq!(bench.failed().len(), 0);
}

#[tokio::test]
async fn a_write_that_was_refused_until_its_deadline_is_surely_not_stored() {
    let bench = bench(settings(), WriterLimits::default()).await;
    bench.js.delete_stream("KV_answers").await.unwrap();
    let error = bench.wait(put("a", "1"), 200 * MS).await.unwrap_err();
    assert!(
        matches!(&error, WriteError::NotStored { cause: Some(cause) } if cause.contains("no responders")),
        "{error}"
    );
}

#[tokio::test]
async fn a_bucket_behind_a_domain_is_written_to() {
    let server = TestServer::builder().config("jetstream { domain: hub }");
    let server = server.jetstream(false).start().await.unwrap();
    let js = async_nats::jetstream::with_domain(connect(&server).await, "hub");
    let bucket = provision(&js, StoreKind::Kv, &settings()).await.unwrap();
    assert!(bucket.through_api);
    let writers = Writers::new(js.clone(), WriterLimits::default(), None);
    let writer = writers.writer(&bucket).await.unwrap();
    let permit = writer.reserve(PATIENCE).await.unwrap();
    writer.submit(put("a", "v"), permit);
    writers.drain(Instant::now() + PATIENCE).await;
    let kv = js.get_key_value("answers").await.unwrap();
    assert_eq!(kv.get("a").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn objects_are_stored_and_deleted_in_order_across_a_restart() {
    let bench = bench_of(StoreKind::Object, settings(), WriterLimits::default()).await;
    let large = "x".repeat(3_000_000);
    assert_eq!(bench.wait(put("report 1", &large), PATIENCE).await, Ok(0));
    bench.server.kill().await.unwrap();
    bench.submit(put("report 2", "old"));
    bench.submit(put("report 2", "new"));
    bench.submit(Write {
        action: WriteAction::Delete,
        ..put("report 1", "")
    });
    bench.submit(Write {
        action: WriteAction::Delete,
        ..put("never there", "")
    });
    bench.server.restart().await.unwrap();
    assert_eq!(bench.drain().await.unwritten.len(), 0);
    let store = bench.js.get_object_store("answers").await.unwrap();
    let mut object = store.get("report 2").await.unwrap();
    let mut value = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut object, &mut value)
        .await
        .unwrap();
    assert_eq!(value, "new");
    assert_eq!(object.info.headers.as_ref().unwrap().len(), 1);
    assert!(store.info("report 1").await.unwrap().deleted);
}

#[tokio::test]
async fn all_that_write_to_one_bucket_share_its_writer() {
    let bench = bench(settings(), WriterLimits::default()).await;
    let bucket = provision(&bench.js, StoreKind::Kv, &settings())
        .await
        .unwrap();
    let (one, two) = tokio::join!(bench.writers.writer(&bucket), bench.writers.writer(&bucket));
    assert!(Arc::ptr_eq(&one.unwrap().shared, &two.unwrap().shared));
    assert_eq!(bench.writers.stats().len(), 1);
}

#[tokio::test]
async fn a_leader_that_is_killed_under_its_writes_takes_none_with_it() {
    let cluster = TestCluster::start().await.unwrap();
    let replicated = settings().history(10).replicas(3);
    let js = async_nats::jetstream::new(connect(cluster.server(0)).await);
    let bucket = provision(&js, StoreKind::Kv, &replicated).await.unwrap();
    let writers = Writers::new(js.clone(), WriterLimits::default(), None);
    let writer = writers.writer(&bucket).await.unwrap();
    for version in 0..5 {
        for key in 0..1000 {
            let permit = writer.try_reserve().unwrap();
            writer.submit(put(format!("k{key}"), format!("v{version}")), permit);
        }
    }
    until("some are written", || writer.stats().written > 200).await;
    let leader = cluster.stream_leader("KV_answers").await.unwrap();
    cluster.server(leader).kill().await.unwrap();
    let report = writers.drain(Instant::now() + PATIENCE).await;
    assert_eq!(report.unwritten.len(), 0);
    // Whoever led before comes back, and brings nothing back with it.
    cluster.server(leader).restart().await.unwrap();
    cluster.wait_ready().await.unwrap();
    cluster.stream_leader("KV_answers").await.unwrap();
    let revisions = revisions(&js).await;
    assert_eq!(revisions.len(), 1000);
    for (key, values) in revisions {
        assert_eq!(values, ["v0", "v1", "v2", "v3", "v4"], "{key}");
    }
}
