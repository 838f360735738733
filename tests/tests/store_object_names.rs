//! Names of objects: links, shared bytes, renaming, and what is said of them.

use async_nats::jetstream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{BucketSettings, ObjectEvent, ObjectStore, StoreError};
use nats_service_tests::objects::{CHUNK, bucket, chunks, pattern};
use nats_service_tests::{Nats, soon, too_old, until};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[tokio::test]
async fn a_link_is_read_as_its_target_is_by_then() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    nats.js
        .create_object_store(jetstream::object_store::Config {
            bucket: "other".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap();
    let other = ObjectStore::<()>::bind(nats.js.clone(), "other").unwrap();
    let target = store.object("target").unwrap();
    target.put(&vec![1]).await.unwrap();
    let (near, far) = (store.object("near").unwrap(), other.object("far").unwrap());
    let info = near.link_to(&target).await.unwrap();
    let link = info.link.unwrap();
    assert_eq!((&*link.bucket, link.name.as_deref()), ("o", Some("target")));
    far.link_to(&target).await.unwrap();
    assert_eq!(near.get().await.unwrap().unwrap().value, [1]);
    assert_eq!(far.bytes().await.unwrap().unwrap(), "[1]");
    target.put(&vec![2]).await.unwrap();
    assert_eq!(near.get().await.unwrap().unwrap().value, [2]);
    // A deleted target is none; a deleted link leaves its target.
    target.delete().await.unwrap();
    assert!(near.get().await.unwrap().is_none());
    assert!(near.info().await.unwrap().is_some());
    target.put(&vec![3]).await.unwrap();
    assert!(near.delete().await.unwrap());
    assert_eq!(target.get().await.unwrap().unwrap().value, [3]);
    // Over a deleted name, and over another link.
    near.link_to(&target).await.unwrap();
    far.put_reader(&b"far"[..]).await.unwrap();
    near.link_to(&far).await.unwrap();
    assert_eq!(near.bytes().await.unwrap().unwrap(), "far");
    // A link that is overwritten is an object, and its target whole.
    near.put(&vec![4]).await.unwrap();
    assert_eq!(near.get().await.unwrap().unwrap().value, [4]);
    assert_eq!(far.bytes().await.unwrap().unwrap(), "far");
}

#[tokio::test]
async fn links_that_lead_nowhere_in_one_step_are_refused() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    let object = |name: &str| store.object(name).unwrap();
    object("a").put_reader(&b"a"[..]).await.unwrap();
    object("link").link_to(&object("a")).await.unwrap();
    for (name, target) in [("b", "link"), ("link", "link"), ("self", "self")] {
        let refused = object(name).link_to(&object(target)).await;
        assert!(
            matches!(refused, Err(StoreError::Link { .. })),
            "{refused:?}"
        );
    }
    let missing = object("b").link_to(&object("nothing")).await;
    assert!(matches!(missing, Err(StoreError::ObjectNotFound { name }) if name == "nothing"));
    object("b").put_reader(&b"b"[..]).await.unwrap();
    let taken = object("b").link_to(&object("a")).await;
    assert!(matches!(taken, Err(StoreError::ObjectExists { name }) if name == "b"));
    // To a bucket there is a link, but nothing to read.
    let link = object("all").link_to_bucket("elsewhere").await.unwrap();
    assert_eq!(link.link.unwrap().bucket, "elsewhere");
    let error = object("all").bytes().await.unwrap_err();
    assert!(
        error.to_string().contains("link to a whole bucket"),
        "{error}"
    );
    // What became a link later makes a chain, which is not followed.
    object("chain").link_to(&object("b")).await.unwrap();
    object("b").delete().await.unwrap();
    object("b").link_to(&object("a")).await.unwrap();
    let chain = object("chain").bytes().await;
    assert!(matches!(chain, Err(StoreError::Link { .. })), "{chain:?}");
}

#[tokio::test]
async fn a_ring_of_links_that_another_client_has_made_is_an_error_and_no_end_of_the_process() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    let (one, two) = (store.object("one").unwrap(), store.object("two").unwrap());
    one.put_reader(&b"1"[..]).await.unwrap();
    two.link_to(&one).await.unwrap();
    let stream = nats.js.get_stream("OBJ_o").await.unwrap();
    let meta = stream.get_last_raw_message_by_subject("$O.o.M.dHdv").await;
    let meta = String::from_utf8(meta.unwrap().payload.to_vec()).unwrap();
    let swapped = meta
        .replace("one", "?")
        .replace("two", "one")
        .replace('?', "two");
    let published = nats.js.publish("$O.o.M.b25l", swapped.into()).await;
    published.unwrap().await.unwrap();
    for object in [one, two] {
        assert!(object.info().await.unwrap().unwrap().link.is_some());
        let ring = object.bytes().await;
        assert!(matches!(ring, Err(StoreError::Link { .. })), "{ring:?}");
    }
}

#[tokio::test]
async fn equal_bytes_are_stored_once_whatever_their_names() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let bytes = pattern(3 * CHUNK);
    let object = |name: &str| store.object(name).unwrap();
    let (a, b, c) = (object("a"), object("b"), object("c"));
    let first = a
        .upload()
        .shared()
        .content_type("a/a")
        .bytes(bytes.clone())
        .await
        .unwrap();
    b.upload().shared().read_from(&bytes[..]).await.unwrap();
    c.upload().shared().bytes(bytes.clone()).await.unwrap();
    assert!(first.is_shared());
    until("they are there once", async || chunks(&nats).await == 3).await;
    for object in [&a, &b, &c] {
        assert_eq!(object.bytes().await.unwrap().unwrap(), bytes);
        let info = object.info().await.unwrap().unwrap();
        assert_eq!(
            (info.size, info.digest),
            (bytes.len() as u64, first.digest.clone())
        );
    }
    // What is said of one name is its own.
    let reader = a.reader().await.unwrap().unwrap();
    assert_eq!(reader.info().content_type(), Some("a/a"));
    assert_eq!((&*reader.info().name, reader.info().chunks), ("a", 3));
    let reader = b.range(CHUNK as u64..).await.unwrap().unwrap();
    assert_eq!(
        (reader.info().content_type(), reader.length()),
        (None, 2 * CHUNK as u64)
    );
    let names: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
    let names: Vec<_> = names.iter().map(|info| &*info.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    // Neither deleting nor overwriting one touches the others.
    a.delete().await.unwrap();
    b.put_reader(&b"else"[..]).await.unwrap();
    assert_eq!(c.bytes().await.unwrap().unwrap(), bytes);
    assert_eq!(store.remove_unshared(Duration::ZERO).await.unwrap(), (0, 0));
    c.delete().await.unwrap();
    assert_eq!(
        store
            .remove_unshared(Duration::from_secs(60))
            .await
            .unwrap(),
        (0, 0)
    );
    let removed = store.remove_unshared(Duration::ZERO).await.unwrap();
    assert_eq!(removed, (1, bytes.len() as u64));
    assert_eq!(chunks(&nats).await, 1);
    // And it can come back.
    c.upload().shared().bytes(bytes.clone()).await.unwrap();
    assert_eq!(c.bytes().await.unwrap().unwrap(), bytes);
    // A name for a missing one is not damaged by whoever knows the other's name.
    let content = c.info().await.unwrap().unwrap().link.unwrap().name.unwrap();
    let content = object(&content);
    assert_eq!(content.bytes().await.unwrap().unwrap(), bytes);
    for refused in [
        content.delete().await.map(drop),
        content.put(&vec![1]).await.map(drop),
        content.rename("d").await.map(drop),
        content.describe(|_| ()).await.map(drop),
        b.rename(content.name()).await.map(drop),
        object("d").link_to(&content).await.map(drop),
    ] {
        assert!(
            matches!(
                refused,
                Err(StoreError::ObjectName { .. } | StoreError::Link { .. })
            ),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn names_for_equal_bytes_that_come_and_go_at_once_are_never_damaged() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    let bytes = pattern(CHUNK + 1);
    let mut tasks = Vec::new();
    for i in 0..4 {
        let object = store.object(format!("name {i}")).unwrap();
        let bytes = bytes.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                object.upload().shared().bytes(bytes.clone()).await.unwrap();
                assert_eq!(object.bytes().await.unwrap().unwrap(), bytes);
                object.delete().await.unwrap();
            }
        }));
    }
    let sweeping = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                store
                    .remove_unshared(Duration::from_millis(500))
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    for task in tasks {
        task.await.unwrap();
    }
    sweeping.abort();
}

/// A bucket that takes atomic batches.
async fn atomic<T>(nats: &Nats) -> ObjectStore<T> {
    let settings = BucketSettings::new("o").atomic(true);
    let store = ObjectStore::create(nats.js.clone(), settings).await;
    store.expect("a bucket")
}

#[tokio::test]
async fn a_rename_copies_nothing_and_overwrites_nothing() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    rename_now_and_then(&nats, &store).await;
}

#[tokio::test]
async fn neither_does_one_in_a_batch() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let store = atomic(&nats).await;
    rename_now_and_then(&nats, &store).await;
}

async fn rename_now_and_then(nats: &Nats, store: &ObjectStore<Vec<u32>>) {
    let object = |name: &str| store.object(name).unwrap();
    let bytes = pattern(3 * CHUNK);
    let upload = object("old").upload().description("what for");
    let old = upload.read_from(&bytes[..]).await.unwrap();
    object("taken").put(&vec![1]).await.unwrap();
    let mut watch = store.watch().await.unwrap();
    while !matches!(
        soon("initial", watch.next()).await,
        Some(Ok(ObjectEvent::InitialDone))
    ) {}
    let taken = object("old").rename("taken").await;
    assert!(matches!(taken, Err(StoreError::ObjectExists { name }) if name == "taken"));
    let new = object("old").rename("new").await.unwrap();
    assert_eq!(
        (&*new.name, &new.nuid, new.description.as_deref()),
        ("new", &old.nuid, Some("what for"))
    );
    assert_eq!(object("new").bytes().await.unwrap().unwrap(), bytes);
    assert!(object("old").info().await.unwrap().is_none());
    let mut events = Vec::new();
    while events.len() < 2 {
        if let Some(Ok(ObjectEvent::Changed(info))) = soon("an event", watch.next()).await {
            events.push((info.name, info.deleted));
        }
    }
    assert_eq!(
        events,
        [("new".to_owned(), false), ("old".to_owned(), true)]
    );
    assert_eq!(chunks(nats).await, 4);
    // Whatever happens to the old name, the bytes have another one now.
    object("old").put(&vec![2]).await.unwrap();
    object("old").delete().await.unwrap();
    assert_eq!(object("new").bytes().await.unwrap().unwrap(), bytes);
    let missing = object("old").rename("newer").await;
    assert!(
        matches!(missing, Err(StoreError::ObjectNotFound { .. })),
        "{missing:?}"
    );
    // Onto a deleted name, and a link.
    object("taken").delete().await.unwrap();
    object("new").rename("taken").await.unwrap();
    object("link").link_to(&object("taken")).await.unwrap();
    object("link").rename("other link").await.unwrap();
    assert_eq!(object("other link").bytes().await.unwrap().unwrap(), bytes);
    object("taken").rename("taken").await.unwrap();
    assert_eq!(object("taken").bytes().await.unwrap().unwrap(), bytes);
}

#[tokio::test]
async fn a_rename_that_was_interrupted_is_ended_when_it_is_repeated() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    let old = store.object("a").unwrap();
    old.put_reader(&b"bytes"[..]).await.unwrap();
    // As a killed process leaves it: both names, one version.
    let stream = nats.js.get_stream("OBJ_o").await.unwrap();
    let meta = stream
        .get_last_raw_message_by_subject("$O.o.M.YQ==")
        .await
        .unwrap();
    let text = String::from_utf8(meta.payload.to_vec()).unwrap();
    let text = text.replace(r#""name":"a""#, r#""name":"b""#);
    nats.js
        .publish("$O.o.M.Yg==", text.into())
        .await
        .unwrap()
        .await
        .unwrap();
    old.rename("b").await.unwrap();
    assert!(old.info().await.unwrap().is_none());
    let new = store.object("b").unwrap();
    assert_eq!(new.bytes().await.unwrap().unwrap(), "bytes");
}

#[tokio::test]
async fn a_client_that_is_killed_in_a_rename_by_a_batch_leaves_one_name() {
    if too_old(2).await {
        return;
    }
    let nats = Nats::start().await;
    let store = atomic::<()>(&nats).await;
    let object = |name: &str| store.object(name).unwrap();
    object("old").put_reader(&b"bytes"[..]).await.unwrap();

    let (url, killed) = dies_before(&nats, b"Nats-Batch-Commit").await;
    let js = jetstream::new(async_nats::connect(url).await.unwrap());
    let theirs = ObjectStore::<()>::bind(js, "o").unwrap();
    let renaming = tokio::spawn(async move { theirs.object("old").unwrap().rename("new").await });
    soon("its death", killed).await.unwrap();
    renaming.abort();
    assert!(object("new").info().await.unwrap().is_none());
    assert_eq!(object("old").bytes().await.unwrap().unwrap(), "bytes");

    object("old").rename("new").await.unwrap();
    assert!(object("old").info().await.unwrap().is_none());
    assert_eq!(object("new").bytes().await.unwrap().unwrap(), "bytes");
}

/// A way to the server for one connection, which is lost before the first message that has this header: the server has handled
/// all messages before that one.
async fn dies_before(nats: &Nats, header: &'static [u8]) -> (String, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    let server = format!("127.0.0.1:{}", nats.server.port());
    let (dead, killed) = oneshot::channel();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        // Nobody connects again.
        drop(listener);
        let mut server = TcpStream::connect(server).await.unwrap();
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                read = client.read_buf(&mut asked) => assert!(read.unwrap() > 0),
                read = server.read_buf(&mut answered) => assert!(read.unwrap() > 0),
            }
            client
                .write_all(&std::mem::take(&mut answered))
                .await
                .unwrap();
            // The last message waits for the next one: it may not be whole.
            let last = asked.windows(5).rposition(|it| it == b"HPUB ");
            let rest = asked.split_off(last.unwrap_or(asked.len()));
            server
                .write_all(&std::mem::replace(&mut asked, rest))
                .await
                .unwrap();
            if asked.windows(header.len()).any(|it| it == header) {
                break;
            }
        }
        server.write_all(b"PING\r\n").await.unwrap();
        while !answered.windows(4).any(|it| it == b"PONG") {
            assert!(server.read_buf(&mut answered).await.unwrap() > 0);
        }
        let _ = dead.send(());
    });
    (url, killed)
}

#[tokio::test]
async fn what_is_said_of_an_object_changes_alone_and_keeps_what_is_not_named() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let object = store.object("a").unwrap();
    let nothing = object.describe(|_| ()).await;
    assert!(
        matches!(nothing, Err(StoreError::ObjectNotFound { .. })),
        "{nothing:?}"
    );
    let first = object.put(&vec![1]).await.unwrap();
    // Somebody else's metadata has what this crate does not know.
    let stream = nats.js.get_stream("OBJ_o").await.unwrap();
    let meta = stream
        .get_last_raw_message_by_subject("$O.o.M.YQ==")
        .await
        .unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&meta.payload).unwrap();
    json["unheard_of"] = 7.into();
    json["options"]["unheard_of"] = 8.into();
    let json = json.to_string();
    nats.js
        .publish("$O.o.M.YQ==", json.into())
        .await
        .unwrap()
        .await
        .unwrap();
    let described = object.describe(|meta| {
        meta.description = Some("a list".to_owned());
        meta.metadata.insert("k".to_owned(), "v".to_owned());
        meta.headers.insert("X-Y", "z");
    });
    let described = described.await.unwrap();
    assert_eq!(described.content_type(), Some("application/json"));
    let info = object.info().await.unwrap().unwrap();
    assert_eq!(info.meta(), described.meta());
    assert_eq!(
        (info.nuid, info.size, info.digest),
        (first.nuid, first.size, first.digest)
    );
    assert_eq!(object.get().await.unwrap().unwrap().value, [1]);
    let meta = stream
        .get_last_raw_message_by_subject("$O.o.M.YQ==")
        .await
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&meta.payload).unwrap();
    assert_eq!(
        (&json["unheard_of"], &json["options"]["unheard_of"]),
        (&7.into(), &8.into())
    );
    // On a condition, and many at once: none is lost.
    let late = object
        .describe_if(first.revision, |meta| meta.description = None)
        .await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    let changes = (0..8).map(|i| {
        let object = object.clone();
        tokio::spawn(async move {
            let key = format!("key {i}");
            let change = |meta: &mut nats_service::ObjectMeta| {
                meta.metadata.insert(key.clone(), String::new());
            };
            object.describe(change).await
        })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap().unwrap();
    }
    assert_eq!(object.info().await.unwrap().unwrap().metadata.len(), 9);
}

#[tokio::test]
async fn a_sealed_bucket_refuses_every_change_and_is_read() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let object = store.object("a").unwrap();
    object.put(&vec![1]).await.unwrap();
    assert!(!store.status().await.unwrap().sealed);
    store.seal().await.unwrap();
    assert!(store.status().await.unwrap().sealed);
    for refused in [
        object.put(&vec![2]).await.map(drop),
        object.delete().await.map(drop),
        object.rename("b").await.map(drop),
        object.describe(|_| ()).await.map(drop),
        store.object("b").unwrap().link_to(&object).await.map(drop),
        object.upload().shared().bytes("x").await.map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::Sealed)), "{refused:?}");
    }
    assert_eq!(object.get().await.unwrap().unwrap().value, [1]);
    let listed: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    let missing = ObjectStore::<()>::bind(nats.js.clone(), "nowhere").unwrap();
    assert!(matches!(
        missing.seal().await,
        Err(StoreError::BucketNotFound { .. })
    ));
}

#[tokio::test]
async fn a_list_ends_when_objects_are_purged_under_it() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    let count = 3000;
    for i in 0..count {
        // Metadata alone is enough for a list.
        let name = format!("object {i}");
        let meta = serde_json::json!({"name": name, "bucket": "o", "nuid": "x", "description": "y".repeat(2000)});
        use base64::Engine as _;
        let subject = base64::engine::general_purpose::URL_SAFE.encode(&name);
        let sent = nats
            .js
            .publish(format!("$O.o.M.{subject}"), meta.to_string().into())
            .await;
        if i == count - 1 {
            sent.unwrap().await.unwrap();
        }
    }
    let mut list = store.list().await.unwrap();
    list.next().await.unwrap().unwrap();
    let stream = nats.js.get_stream("OBJ_o").await.unwrap();
    stream.purge().await.unwrap();
    soon("the end", list.count()).await;
}

#[tokio::test]
async fn metadata_under_another_name_than_its_subject_is_that_of_the_subject() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    let meta = r#"{"name":"victim","bucket":"o","nuid":"x"}"#;
    nats.js
        .publish("$O.o.M.YQ==", meta.into())
        .await
        .unwrap()
        .await
        .unwrap();
    let listed: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed[0].name, "a");
    assert!(
        store
            .object("victim")
            .unwrap()
            .info()
            .await
            .unwrap()
            .is_none()
    );
}
