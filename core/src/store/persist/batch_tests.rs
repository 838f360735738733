//! The writer's promises where its writes go in batches (fast ingest), which are lost with connections and servers.

use super::tests::{MS, PATIENCE, put, revisions, settings, until};
use super::*;
use crate::store::bucket::{BucketSettings, provision};
use crate::wire::header::WRITE;
use async_nats::Message;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::StreamExt as _;
use nats_service_testkit::{Proxy, TestServer};
use std::collections::BTreeMap;

const KEYS: usize = 2000;
const VERSIONS: usize = 5;

fn several() -> BucketSettings {
    settings().history(10)
}

async fn js(url: &str) -> Context {
    let options = async_nats::ConnectOptions::new().reconnect_delay_callback(|_| 20 * MS);
    async_nats::jetstream::new(options.connect(url).await.unwrap())
}

async fn writers(js: &Context, settings: &BucketSettings) -> (Writers, Writer) {
    let bucket = provision(js, StoreKind::Kv, settings).await.unwrap();
    let writers = Writers::new(js.clone(), WriterLimits::default(), None);
    let writer = writers.writer(&bucket).await.unwrap();
    (writers, writer)
}

async fn submit(writer: &Writer, write: Write) {
    let permit = writer.reserve(PATIENCE).await.unwrap();
    writer.submit(write, permit);
}

async fn drained(writers: &Writers) {
    let report = writers.drain(Instant::now() + PATIENCE).await;
    assert_eq!(report.unwritten.len(), 0);
}

async fn write_all(writer: &Writer) {
    for version in 0..VERSIONS {
        for key in 0..KEYS {
            submit(writer, put(format!("k{key}"), format!("v{version}"))).await;
        }
    }
}

/// How many of the stored writes have a name, and so came in a batch.
async fn in_batches(js: &Context) -> usize {
    let mut stream = js.get_stream("KV_answers").await.unwrap();
    let count = stream.info().await.unwrap().state.messages as usize;
    let config = OrderedConfig {
        headers_only: true,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count);
    let named = messages.filter(|message| {
        let headers = message.as_ref().unwrap().headers.as_ref().unwrap();
        std::future::ready(headers.get(WRITE).is_some())
    });
    named.count().await
}

/// How many of the writes come in batches is the machine's business: while it has no time for this process, none do.
async fn in_the_end_a_batch(mut named: impl AsyncFnMut() -> usize) {
    let mut attempts = 1..=5;
    while named().await == 0 {
        assert!(attempts.next().is_some(), "never a batch");
    }
}

fn once_and_in_order(revisions: BTreeMap<String, Vec<String>>) {
    assert_eq!(revisions.len(), KEYS);
    for (key, values) in revisions {
        assert_eq!(values, ["v0", "v1", "v2", "v3", "v4"], "{key}");
    }
}

#[tokio::test]
async fn many_writes_at_once_go_in_batches_unless_the_bucket_takes_none() {
    let server = TestServer::start().await.unwrap();
    let js = js(server.url()).await;
    for fast_ingest in [None, Some(false)] {
        let settings = fast_ingest
            .iter()
            .fold(several(), |it, on| it.fast_ingest(*on));
        let write = async || {
            let (writers, writer) = writers(&js, &settings).await;
            write_all(&writer).await;
            drained(&writers).await;
            let named = in_batches(&js).await;
            once_and_in_order(revisions(&js).await);
            js.delete_stream("KV_answers").await.unwrap();
            named
        };
        match fast_ingest {
            None => in_the_end_a_batch(write).await,
            _ => assert_eq!(write().await, 0),
        }
    }
}

#[tokio::test]
async fn a_few_writes_are_stored_at_once_and_not_when_a_batch_is_full() {
    let server = TestServer::start().await.unwrap();
    let js = js(server.url()).await;
    let (writers, writer) = writers(&js, &several()).await;
    for round in 0..20 {
        for key in 0..30 {
            submit(&writer, put(format!("k{key}"), round.to_string())).await;
        }
        let stored = 30 * (round + 1);
        until("they are stored", || writer.stats().written == stored).await;
    }
    drained(&writers).await;
    let hot = &revisions(&js).await["k0"];
    assert_eq!(
        hot[..],
        ["10", "11", "12", "13", "14", "15", "16", "17", "18", "19"]
    );
}

#[tokio::test]
async fn connections_that_are_cut_under_batches_lose_and_repeat_and_disorder_nothing() {
    let server = TestServer::start().await.unwrap();
    let direct = js(server.url()).await;
    let proxy = Proxy::start(server.url()).await.unwrap();
    let (writers, writer) = writers(&js(proxy.url()).await, &several()).await;
    let cuts = async {
        let (all, mut seen) = ((KEYS * VERSIONS) as u64, 0);
        while seen + 400 < all {
            until("some more are written", || {
                writer.stats().written > seen + 300
            })
            .await;
            proxy.cut().await.unwrap();
            seen = writer.stats().written;
            proxy.pass().await.unwrap();
        }
    };
    tokio::join!(write_all(&writer), cuts);
    drained(&writers).await;
    assert!(writer.stats().retried > 0, "nothing was ever under way");
    once_and_in_order(revisions(&direct).await);
}

#[tokio::test]
async fn what_comes_late_and_once_more_overwrites_nothing() {
    let server = TestServer::start().await.unwrap();
    let direct = js(server.url()).await;
    // Whatever the writer sends, batches and single writes, with its reply subjects.
    let client = direct.client();
    let sent = client.subscribe("$KV.answers.>").await.unwrap();
    client.flush().await.unwrap();
    let (writers, writer) = writers(&js(server.url()).await, &several()).await;
    write_all(&writer).await;
    drained(&writers).await;

    let mark = || direct.publish("$KV.answers.mark", Bytes::new());
    mark().await.unwrap().await.unwrap();
    let before_mark = |message: &Message| std::future::ready(!message.subject.ends_with(".mark"));
    let sent: Vec<_> = sent.take_while(before_mark).collect().await;
    assert!(sent.len() > KEYS * VERSIONS, "the ends of batches, too");
    for late in sent {
        let (subject, reply) = (late.subject, late.reply.unwrap());
        // The beginning of a batch is answered before anything follows, so what follows cannot come before it.
        if reply.ends_with(".0.$FI") {
            continue;
        }
        let headers = late.headers.unwrap();
        let sending = client.publish_with_reply_and_headers(subject, reply, headers, late.payload);
        sending.await.unwrap();
    }
    // It stands behind them in the bucket.
    mark().await.unwrap().await.unwrap();
    let mut revisions = revisions(&direct).await;
    assert_eq!(revisions.remove("mark").map(|marks| marks.len()), Some(2));
    once_and_in_order(revisions);
}

#[tokio::test]
async fn where_only_last_values_are_kept_a_batch_that_was_lost_is_known_by_them_and_not_sent_again()
{
    in_the_end_a_batch(killed_amid_last_values).await;
}

/// How many of the writes that are there in the end came in a batch, and have a name.
async fn killed_amid_last_values() -> usize {
    let server = TestServer::start().await.unwrap();
    let js = js(server.url()).await;
    let (writers, writer) = writers(&js, &settings()).await;
    let all = KEYS * VERSIONS;
    let write_all = async |version| {
        for key in 0..all {
            submit(&writer, put(format!("k{key}"), format!("{version}-{key}"))).await;
        }
    };
    let written = || writer.stats().written as usize;
    write_all("old").await;
    until("most are written", || written() > all - KEYS).await;
    write_all("new").await;
    until("some are written again", || written() > all + KEYS).await;
    server.kill().await.unwrap();
    assert!(written() < 2 * all - KEYS, "killed too late");
    server.restart().await.unwrap();
    drained(&writers).await;
    let revisions = revisions(&js).await;
    assert_eq!(revisions.len(), all);
    for (key, values) in revisions {
        assert_eq!(values, [key.replace('k', "new-")]);
    }
    let mut stream = js.get_stream("KV_answers").await.unwrap();
    let stored = stream.info().await.unwrap().state.last_sequence;
    assert_eq!(stored, writer.stats().written, "some were stored twice");
    // Names are few.
    let named = in_batches(&js).await;
    assert!(named < all / 8, "{named} named");
    named
}

#[tokio::test]
async fn a_user_who_may_not_read_from_the_leader_loses_nothing_with_a_batch() {
    let denied = "no_auth_user: all
        authorization { users: [
        { user: all, password: p }
        { user: writer, password: p, permissions: { publish: { deny: \"$JS.API.STREAM.MSG.GET.>\" } } }
    ] }";
    let server = TestServer::builder().config(denied).start().await.unwrap();
    let address = server.url().trim_start_matches("nats://").to_owned();
    let direct = js(&format!("nats://all:p@{address}")).await;
    let (writers, writer) =
        writers(&js(&format!("nats://writer:p@{address}")).await, &several()).await;
    write_all(&writer).await;
    until("some are written", || writer.stats().written > 2000).await;
    server.kill().await.unwrap();
    assert!(
        writer.stats().written < (KEYS * VERSIONS) as u64,
        "killed too late"
    );
    server.restart().await.unwrap();
    drained(&writers).await;
    let revisions = revisions(&direct).await;
    assert_eq!(revisions.len(), KEYS);
    for (key, mut values) in revisions {
        // Repeated, perhaps, but never out of order.
        values.dedup();
        assert_eq!(values, ["v0", "v1", "v2", "v3", "v4"], "{key}");
    }
}

#[tokio::test]
async fn a_value_that_is_refused_in_the_midst_of_a_batch_takes_no_other_with_it() {
    let server = TestServer::start().await.unwrap();
    let js = js(server.url()).await;
    let small = settings().max_value_size(1000);
    let bucket = provision(&js, StoreKind::Kv, &small).await.unwrap();
    let failed = Arc::new(Mutex::new(Vec::new()));
    let seen = failed.clone();
    let hook: FailureHook = Arc::new(move |write| seen.lock().unwrap().push(write.key.clone()));
    let writers = Writers::new(js.clone(), WriterLimits::default(), Some(hook));
    let writer = writers.writer(&bucket).await.unwrap();
    for key in 0..6000 {
        let value = if key % 2000 == 1500 {
            "x".repeat(2000)
        } else {
            "v".to_owned()
        };
        submit(&writer, put(format!("k{key}"), value)).await;
    }
    drained(&writers).await;
    assert_eq!(*failed.lock().unwrap(), ["k1500", "k3500", "k5500"]);
    assert_eq!(revisions(&js).await.len(), 5997);
}
