//! Uploads: conditions, progress, what breaks on the way, and going on later.

use async_nats::jetstream;
use nats_service::{ObjectKey, ObjectStore, Progress, StoreError, UploadToken};
use nats_service_testkit::{Proxy, TestCluster};
use nats_service_tests::objects::{CHUNK, bucket, chunks, failing, held, pattern};
use nats_service_tests::{Nats, PATIENCE, soon, until};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn is_connected(client: &async_nats::Client) -> bool {
    client.connection_state() == async_nats::connection::State::Connected
}

/// The sequences of all chunks in the bucket `o`, in the order of the stream.
async fn sequences(nats: &Nats) -> Vec<u64> {
    use futures_util::StreamExt as _;
    let stream = nats.js.get_stream("OBJ_o").await.unwrap();
    let config = jetstream::consumer::pull::Config {
        filter_subject: "$O.o.C.>".to_owned(),
        ack_policy: jetstream::consumer::AckPolicy::None,
        headers_only: true,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer
        .fetch()
        .max_messages(1000)
        .messages()
        .await
        .unwrap();
    messages
        .map(|message| message.unwrap().info().unwrap().stream_sequence)
        .collect()
        .await
}

#[tokio::test]
async fn an_upload_on_a_condition_changes_nothing_where_that_does_not_hold() {
    let nats = Nats::start().await;
    let object = bucket::<Vec<u32>>(&nats).await.object("a").unwrap();
    let first = object.create(&vec![1]).await.unwrap();
    for refused in [
        object.create(&vec![2]).await,
        object.update(&vec![2], first.revision + 1).await,
        object.upload().if_absent().read_from(&b"2"[..]).await,
    ] {
        match refused {
            Err(StoreError::Conflict { current, .. }) => assert_eq!(current, Some(first.revision)),
            other => panic!("{other:?}"),
        }
    }
    let second = object.update(&vec![2], first.revision).await.unwrap();
    assert_eq!(object.get().await.unwrap().unwrap().value, [2]);
    assert_eq!(chunks(&nats).await, 1);
    // One that was deleted is absent.
    object.delete_if(second.revision).await.unwrap();
    assert!(object.delete_if(second.revision).await.is_err());
    object.create(&vec![3]).await.unwrap();
}

#[tokio::test]
async fn of_uploads_on_one_condition_one_wins_and_the_others_leave_no_chunk() {
    let nats = Nats::start().await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    let first = object.put_reader(&b"first"[..]).await.unwrap();
    // All of them have sent their chunks before any of them may end.
    let mut uploads = Vec::new();
    let mut holders = Vec::new();
    for i in 1..=8_usize {
        let (source, holder) = held(pattern(i * CHUNK), i * CHUNK);
        let upload = object.upload().if_revision(first.revision);
        uploads.push(tokio::spawn(upload.read_from(source)));
        holders.push(holder);
    }
    until("all chunks are there", async || chunks(&nats).await == 37).await;
    for holder in holders {
        holder.release();
    }
    let mut won = None;
    for upload in uploads {
        match upload.await.unwrap() {
            Ok(info) => assert!(won.replace(info).is_none(), "two won"),
            Err(StoreError::Conflict { expected, .. }) => assert_eq!(expected, first.revision),
            Err(error) => panic!("{error:?}"),
        }
    }
    let won = won.expect("one wins");
    assert_eq!(object.info().await.unwrap().unwrap().nuid, won.nuid);
    let left = usize::try_from(won.chunks).unwrap();
    until("the others are purged", async || {
        chunks(&nats).await == left
    })
    .await;
}

#[tokio::test]
async fn progress_goes_up_to_the_end() {
    let nats = Nats::start().await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    let seen = Arc::new(Mutex::new(Vec::<Progress>::new()));
    let told = {
        let seen = seen.clone();
        move |progress| seen.lock().unwrap().push(progress)
    };
    let bytes = pattern(100 * CHUNK);
    let total = bytes.len() as u64;
    let upload = object.upload().total(total).on_progress(told.clone());
    upload.read_from(&bytes[..]).await.unwrap();
    {
        let mut seen = seen.lock().unwrap();
        assert!(seen.len() > 10, "{}", seen.len());
        assert!(seen.is_sorted_by(|a, b| a.bytes < b.bytes && a.elapsed <= b.elapsed));
        let last = seen.last().unwrap();
        assert_eq!(
            (last.bytes, last.total, last.resumed),
            (total, Some(total), 0)
        );
        assert!(last.rate > 0.0);
        seen.clear();
    }
    let reader = object.reader().await.unwrap().unwrap().on_progress(told);
    assert_eq!(reader.length(), total);
    tokio::io::copy(&mut { reader }, &mut tokio::io::sink())
        .await
        .unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.last().unwrap().bytes, total);
    assert_eq!(seen.len(), 100);
}

#[tokio::test]
async fn chunks_are_of_the_size_that_was_asked_for_and_fit_a_message() {
    let nats = Nats::start_with(|server| server.max_payload(64 * 1024)).await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    let bytes = pattern(200_000);
    let info = object.upload().chunk_size(10_000).read_from(&bytes[..]);
    assert_eq!(info.await.unwrap().chunks, 20);
    assert_eq!(object.bytes().await.unwrap().unwrap(), bytes);
    // The default is more than this server takes; 0 is the default.
    for upload in [object.upload(), object.upload().chunk_size(0)] {
        let info = upload.read_from(&bytes[..]).await.unwrap();
        assert_eq!(info.chunks, 4);
    }
    assert_eq!(object.bytes().await.unwrap().unwrap(), bytes);
}

#[tokio::test]
async fn an_upload_survives_a_broken_connection() {
    let nats = Nats::start().await;
    bucket::<()>(&nats).await;
    let proxy = Proxy::start(nats.server.url()).await.unwrap();
    let client = async_nats::connect(proxy.url()).await.unwrap();
    let js = jetstream::new(client.clone());
    let object = ObjectStore::<()>::bind(js, "o")
        .unwrap()
        .object("a")
        .unwrap();
    let bytes = pattern(150 * CHUNK);
    let (source, holder) = held(bytes.clone(), 70 * CHUNK);
    let upload = tokio::spawn({
        let object = object.clone();
        async move { object.put_reader(source).await }
    });
    until("chunks arrive", async || chunks(&nats).await > 20).await;
    for _ in 0..3 {
        proxy.cut().await.unwrap();
        until("it is noticed", async || !is_connected(&client)).await;
        proxy.pass().await.unwrap();
        until("it is mended", async || is_connected(&client)).await;
    }
    holder.release();
    let info = soon("the upload", upload).await.unwrap().unwrap();
    assert_eq!(info.chunks, 150);
    assert_eq!(chunks(&nats).await, 150);
    assert!(object.bytes().await.unwrap().unwrap() == bytes);
}

#[tokio::test]
async fn an_upload_survives_the_death_of_the_leader() {
    let cluster = TestCluster::start().await.unwrap();
    let servers: Vec<String> = cluster.urls().iter().map(ToString::to_string).collect();
    let client = async_nats::connect(servers).await.unwrap();
    let js = jetstream::new(client);
    let config = jetstream::object_store::Config {
        bucket: "o".to_owned(),
        num_replicas: 3,
        ..Default::default()
    };
    until("a bucket", async || {
        js.create_object_store(config.clone()).await.is_ok()
    })
    .await;
    let object = ObjectStore::<()>::bind(js, "o")
        .unwrap()
        .object("a")
        .unwrap();
    let bytes = pattern(300 * CHUNK);
    let (source, holder) = held(bytes.clone(), 100 * CHUNK);
    let upload = tokio::spawn({
        let object = object.clone();
        async move { object.put_reader(source).await }
    });
    let leader = cluster.stream_leader("OBJ_o").await.unwrap();
    holder.release();
    cluster.server(leader).kill().await.unwrap();
    let info = tokio::time::timeout(2 * PATIENCE, upload).await;
    let info = info.expect("in time").unwrap().unwrap();
    assert_eq!((info.chunks, info.size), (300, bytes.len() as u64));
    // A replica that answers a read may be behind.
    until("what was stored is read", async || {
        let read = object.bytes().await;
        read.is_ok_and(|read| read.is_some_and(|read| read == bytes))
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_lags_refuses_no_condition_that_holds() {
    let cluster = TestCluster::start().await.unwrap();
    let js = jetstream::new(async_nats::connect(cluster.server(0).url()).await.unwrap());
    let config = jetstream::object_store::Config {
        bucket: "o".to_owned(),
        num_replicas: 3,
        ..Default::default()
    };
    until("a bucket", async || {
        js.create_object_store(config.clone()).await.is_ok()
    })
    .await;
    // One that answers reads with what it has, and hands writes on.
    let follower = (cluster.stream_leader("OBJ_o").await.unwrap() + 1) % 3;
    let url = cluster.server(follower).url();
    let js = jetstream::new(async_nats::connect(url).await.unwrap());
    let store = ObjectStore::<Vec<u32>>::bind(js, "o").unwrap();
    let object = store.object("a").unwrap();
    let link = store.object("link").unwrap();
    for i in 0..40 {
        let first = object.create(&vec![i]).await.unwrap();
        let second = object.update(&vec![i], first.revision).await.unwrap();
        let third = object.describe_if(second.revision, |meta| meta.description = None);
        let third = third.await.unwrap();
        link.link_to(&object).await.unwrap();
        object.delete_if(third.revision).await.unwrap();
        assert!(link.delete().await.unwrap());
    }
}

/// Whatever was stored in another order than it was sent in, is stored anew.
#[tokio::test]
async fn chunks_that_overtook_others_are_put_in_order() {
    let nats = Nats::start().await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    let bytes = pattern(10 * CHUNK);
    let token = interrupted(&object, &bytes, 8 * CHUNK).await;
    // The last two of those that are stored change places.
    let stream = nats.js.get_stream("OBJ_o").await.unwrap();
    let stored = sequences(&nats).await;
    let early = stream.get_raw_message(stored[6]).await.unwrap();
    stream.delete_message(stored[6]).await.unwrap();
    let sent = nats
        .js
        .publish_with_headers(early.subject, headers(&early.headers), early.payload);
    sent.await.unwrap().await.unwrap();
    let upload = store(&nats).resume(&token).unwrap();
    upload.read_from(&bytes[..]).await.unwrap();
    assert_eq!(chunks(&nats).await, 10);
    assert!(object.bytes().await.unwrap().unwrap() == bytes);
}

/// The same, but for the message id, by which the server would drop them.
fn headers(headers: &async_nats::HeaderMap) -> async_nats::HeaderMap {
    let mut copied = async_nats::HeaderMap::new();
    for (name, values) in headers.iter() {
        if name.to_string() != "Nats-Msg-Id" {
            copied.insert(name.clone(), values[0].clone());
        }
    }
    copied
}

fn store(nats: &Nats) -> ObjectStore<()> {
    ObjectStore::bind(nats.js.clone(), "o").unwrap()
}

/// An upload whose source breaks after so many bytes.
async fn interrupted(object: &ObjectKey<()>, bytes: &[u8], after: usize) -> UploadToken {
    let upload = object.upload().resumable();
    let token = upload.token();
    let failed = upload.read_from(failing(bytes, after)).await;
    assert!(matches!(failed, Err(StoreError::Source(_))), "{failed:?}");
    token
}

#[tokio::test]
async fn an_interrupted_upload_goes_on_and_sends_only_what_is_missing() {
    let nats = Nats::start().await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    object.put_reader(&b"old"[..]).await.unwrap();
    let bytes = pattern(20 * CHUNK + 7);
    let token = interrupted(&object, &bytes, 12 * CHUNK).await;
    // Until then the old one is there.
    until("chunks arrive", async || chunks(&nats).await == 13).await;
    assert_eq!(object.bytes().await.unwrap().unwrap(), "old");
    let before = sequences(&nats).await;

    // Another process has only the text.
    let token: UploadToken = token.to_string().parse().unwrap();
    assert_eq!((token.bucket(), token.name()), ("o", "a"));
    let seen = Arc::new(Mutex::new(None));
    let told = seen.clone();
    let upload = store(&nats).resume(&token).unwrap();
    let upload = upload.on_progress(move |progress| *told.lock().unwrap() = Some(progress));
    let info = upload
        .content_type("text/plain")
        .read_from(&bytes[..])
        .await
        .unwrap();
    assert_eq!((info.chunks, info.content_type()), (21, Some("text/plain")));
    let progress = seen.lock().unwrap().expect("progress");
    assert_eq!(progress.resumed, 12 * CHUNK as u64);
    assert_eq!(progress.bytes, bytes.len() as u64);
    assert!(object.bytes().await.unwrap().unwrap() == bytes);
    let after = sequences(&nats).await;
    assert_eq!(after[..12], before[1..], "what was there stayed");
    assert_eq!(after.len(), 21);

    // Once more, it is there already.
    let again = store(&nats).resume(&token).unwrap();
    let again = again.read_from(&b"something else"[..]).await.unwrap();
    assert_eq!((again.nuid, again.revision), (info.nuid, info.revision));
    // And cannot be given up any more, not even under another name.
    object.rename("b").await.unwrap();
    store(&nats)
        .resume(&token)
        .unwrap()
        .abandon()
        .await
        .unwrap();
    let again = store(&nats).resume(&token).unwrap();
    assert_eq!(again.read_from(&b"else"[..]).await.unwrap().name, "b");
    let renamed = store(&nats).object("b").unwrap();
    assert!(renamed.bytes().await.unwrap().unwrap() == bytes);
}

#[tokio::test]
async fn what_of_an_interrupted_upload_is_no_longer_right_is_sent_anew() {
    let nats = Nats::start().await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    let bytes = pattern(10 * CHUNK);
    // The source changed in its third chunk, was cut, or grew.
    let mut changed = bytes.to_vec();
    changed[2 * CHUNK + 5] ^= 1;
    let cut = bytes.slice(..3 * CHUNK + 1);
    let grown = pattern(12 * CHUNK);
    for other in [changed, cut.to_vec(), grown.to_vec(), Vec::new()] {
        let token = interrupted(&object, &bytes, 7 * CHUNK + 100).await;
        let upload = store(&nats).resume(&token).unwrap();
        let info = upload.read_from(&other[..]).await.unwrap();
        assert_eq!(info.size, other.len() as u64);
        assert!(object.bytes().await.unwrap().unwrap() == other);
        let there = usize::try_from(info.chunks).unwrap();
        until("the old one is purged", async || {
            chunks(&nats).await == there
        })
        .await;
    }
    // The chunks are gone meanwhile.
    let token = interrupted(&object, &bytes, 7 * CHUNK).await;
    store(&nats)
        .resume(&token)
        .unwrap()
        .abandon()
        .await
        .unwrap();
    assert_eq!(chunks(&nats).await, 0);
    let upload = store(&nats).resume(&token).unwrap();
    upload.read_from(&bytes[..]).await.unwrap();
    assert!(object.bytes().await.unwrap().unwrap() == bytes);
}

#[tokio::test]
async fn a_token_of_another_bucket_is_refused() {
    let nats = Nats::start().await;
    let token = bucket::<()>(&nats)
        .await
        .object("a")
        .unwrap()
        .upload()
        .token();
    let other = ObjectStore::<()>::bind(nats.js.clone(), "other").unwrap();
    assert!(matches!(
        other.resume(&token),
        Err(StoreError::BucketName { bucket }) if bucket == "o"
    ));
}

#[tokio::test]
async fn a_sweep_removes_what_came_to_nothing_and_nothing_else() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    let kept = store.object("kept").unwrap();
    kept.put_reader(&pattern(3 * CHUNK)[..]).await.unwrap();
    store.object("link").unwrap().link_to(&kept).await.unwrap();
    let shared = store.object("shared").unwrap();
    shared
        .upload()
        .shared()
        .bytes(pattern(2 * CHUNK))
        .await
        .unwrap();
    let bytes = pattern(10 * CHUNK);
    interrupted(&store.object("a").unwrap(), &bytes, 4 * CHUNK).await;
    // As an older client leaves them.
    let sent = nats
        .js
        .publish("$O.o.C.foreign", "chunk".into())
        .await
        .unwrap();
    sent.await.unwrap();
    assert_eq!(chunks(&nats).await, 10);
    let removed = store
        .remove_orphans(Duration::from_secs(3600))
        .await
        .unwrap();
    assert_eq!((removed.uploads, removed.chunks), (0, 0));
    let removed = store.remove_orphans(Duration::ZERO).await.unwrap();
    assert_eq!((removed.uploads, removed.chunks), (2, 5));
    assert_eq!(chunks(&nats).await, 5);
    assert_eq!(kept.bytes().await.unwrap().unwrap(), pattern(3 * CHUNK));
    assert_eq!(shared.bytes().await.unwrap().unwrap(), pattern(2 * CHUNK));
}

/// With room for twenty chunks.
async fn small_bucket(nats: &Nats) -> ObjectStore<()> {
    let config = jetstream::object_store::Config {
        bucket: "o".to_owned(),
        max_bytes: 20 * CHUNK as i64,
        ..Default::default()
    };
    nats.js.create_object_store(config).await.expect("a bucket");
    store(nats)
}

#[tokio::test]
async fn a_full_bucket_refuses_and_keeps_what_it_has() {
    let nats = Nats::start().await;
    let store = small_bucket(&nats).await;
    let object = store.object("a").unwrap();
    let bytes = pattern(10 * CHUNK);
    object.put_reader(&bytes[..]).await.unwrap();
    let full = store.status().await.unwrap().full().unwrap();
    assert!((0.5..0.51).contains(&full), "{full}");
    let refused = soon("a refusal", object.put_reader(&pattern(15 * CHUNK)[..])).await;
    assert!(
        matches!(refused, Err(StoreError::Server { code: 10077, .. })),
        "{refused:?}"
    );
    until("its chunks are purged", async || chunks(&nats).await == 10).await;
    assert!(object.bytes().await.unwrap().unwrap() == bytes);
}

/// The chunks behind the one that was refused are on their way when the upload gives up: the purge of those before it must not
/// make room for them.
#[tokio::test]
async fn what_is_on_its_way_to_a_full_bucket_leaves_no_chunk() {
    let nats = Nats::start().await;
    let object = small_bucket(&nats).await.object("a").unwrap();
    let large = pattern(50 * CHUNK);
    for _ in 0..20 {
        let refused = soon("a refusal", object.put_reader(&large[..])).await;
        assert!(refused.is_err(), "{refused:?}");
        until("its chunks are purged", async || chunks(&nats).await == 0).await;
    }
}
