//! Typed object stores, against a real server.

use async_nats::jetstream;
use futures_util::{StreamExt, TryStreamExt};
use nats_service::{ObjectEvent, ObjectKey, ObjectStore, StoreError};
use nats_service_tests::objects::{CHUNK, bucket, chunks, failing, held, pattern};
use nats_service_tests::{Nats, soon, until};
use std::io::ErrorKind;
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_typed_object_comes_back_and_says_its_codec() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let object = store.object("a").unwrap();
    assert!(object.get().await.unwrap().is_none());
    let put = object.put(&vec![1, 2]).await.unwrap();
    let got = object.get().await.unwrap().unwrap();
    assert_eq!(got.value, [1, 2]);
    assert_eq!(got.info.content_type(), Some("application/json"));
    assert_eq!(
        (got.info.nuid, got.info.revision, got.info.digest),
        (put.nuid, put.revision, put.digest)
    );
    object.put_reader(&b"no list"[..]).await.unwrap();
    match object.get().await {
        Err(StoreError::Undecodable { key, .. }) => assert_eq!(key, "a"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_size_around_a_chunk_comes_back_in_full_chunks() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let bytes = pattern(size);
        let object = store.object(format!("size {size}")).unwrap();
        // 8 KiB at a time: chunks are filled all the same.
        let reader = tokio::io::BufReader::with_capacity(8 * 1024, &bytes[..]);
        let info = object.put_reader(reader).await.unwrap();
        assert_eq!(info.size, size as u64);
        assert_eq!(info.chunks, size.div_ceil(CHUNK) as u64);
        assert_eq!(object.bytes().await.unwrap().unwrap(), bytes, "{size}");
        // As other clients see it.
        let other = nats.js.get_object_store("o").await.unwrap();
        let mut seen = Vec::new();
        let mut reader = other.get(format!("size {size}")).await.unwrap();
        reader.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, bytes, "{size}");
    }
}

#[tokio::test]
async fn fifty_megabytes_stream_through() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let bytes = pattern(50_000_000);
    let object = store.object("large").unwrap();
    let info = object.put_reader(&bytes[..]).await.unwrap();
    let mut reader = object.reader().await.unwrap().unwrap();
    assert_eq!(reader.info().digest, info.digest);
    let mut seen = Vec::new();
    reader.read_to_end(&mut seen).await.unwrap();
    assert!(seen == bytes);
    drop(reader);
    until("no consumer is left", async || {
        nats.consumers("OBJ_o").await == 0
    })
    .await;
}

#[tokio::test]
async fn an_object_of_another_client_is_read() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let bytes = pattern(CHUNK + 1);
    let other = nats.js.get_object_store("o").await.unwrap();
    let meta = jetstream::object_store::ObjectMetadata {
        name: "theirs".to_owned(),
        description: Some("a thing".to_owned()),
        ..Default::default()
    };
    other.put(meta, &mut &bytes[..]).await.unwrap();
    let object = store.object("theirs").unwrap();
    assert_eq!(object.bytes().await.unwrap().unwrap(), bytes);
    let info = object.info().await.unwrap().unwrap();
    assert_eq!(info.description.as_deref(), Some("a thing"));
    // And a link to it, but no link to a link.
    let target = other.info("theirs").await.unwrap();
    other.add_link("link", &target).await.unwrap();
    let link = store.object("link").unwrap();
    assert_eq!(link.bytes().await.unwrap().unwrap(), bytes);
    let meta = r#"{"name":"ring","bucket":"o","nuid":"x","options":{"link":{"bucket":"o","name":"ring"}}}"#;
    let ack = nats.js.publish("$O.o.M.cmluZw==", meta.into()).await;
    ack.unwrap().await.unwrap();
    let ring = store.object("ring").unwrap().bytes().await;
    assert!(matches!(ring, Err(StoreError::Link { .. })), "{ring:?}");
}

#[tokio::test]
async fn an_overwrite_and_a_delete_leave_no_chunks_behind() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let object = store.object("a").unwrap();
    object.put_reader(&pattern(5 * CHUNK)[..]).await.unwrap();
    object.put_reader(&pattern(2 * CHUNK)[..]).await.unwrap();
    assert_eq!(chunks(&nats).await, 2);
    assert!(object.delete().await.unwrap());
    assert_eq!(chunks(&nats).await, 0);
    assert!(!object.delete().await.unwrap());
    assert!(object.info().await.unwrap().is_none());
    assert!(object.reader().await.unwrap().is_none());
    object.put(&vec![1]).await.unwrap();
    assert_eq!(object.get().await.unwrap().unwrap().value, [1]);
}

#[tokio::test]
async fn a_cancelled_or_failed_upload_leaves_no_chunk_and_the_old_object_whole() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let object = store.object("a").unwrap();
    let old = pattern(3 * CHUNK);
    object.put_reader(&old[..]).await.unwrap();

    let uploading = object.clone();
    let (endless, _holder) = held(pattern(20 * CHUNK), 19 * CHUNK);
    let upload = tokio::spawn(async move { uploading.put_reader(endless).await });
    until("chunks arrive", async || chunks(&nats).await > 10).await;
    upload.abort();
    until("they are purged", async || chunks(&nats).await == 3).await;

    match object
        .put_reader(failing(&pattern(9 * CHUNK), 9 * CHUNK))
        .await
    {
        Err(StoreError::Source(error)) => assert_eq!(error.to_string(), "the disk is gone"),
        other => panic!("{other:?}"),
    }
    until("they are purged", async || chunks(&nats).await == 3).await;
    assert_eq!(object.bytes().await.unwrap().unwrap(), old);
}

#[tokio::test]
async fn uploads_of_one_name_at_once_leave_one_object_and_no_orphan() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let object = store.object("a").unwrap();
    let uploads = (1..=8_usize).map(|i| {
        let object = object.clone();
        tokio::spawn(async move { object.put_reader(&pattern(i * CHUNK)[..]).await })
    });
    let uploads: Vec<_> = uploads.collect();
    let mut infos = Vec::new();
    for upload in uploads {
        infos.push(upload.await.unwrap().unwrap());
    }
    let last = infos.iter().max_by_key(|info| info.revision).unwrap();
    let there = object.info().await.unwrap().unwrap();
    assert_eq!(there.nuid, last.nuid);
    let expected = usize::try_from(there.chunks).unwrap();
    assert_eq!(chunks(&nats).await, expected);
    let bytes = object.bytes().await.unwrap().unwrap();
    assert_eq!(bytes, pattern(expected * CHUNK));
}

/// Reads a part, lets `change` happen, and reads on: the error.
async fn changed_while_read(object: &ObjectKey<Vec<u32>>, change: impl Future<Output = ()>) {
    // More than flow control lets through at once, so that there is something left to purge.
    object.put_reader(&pattern(600 * CHUNK)[..]).await.unwrap();
    let mut reader = object.reader().await.unwrap().unwrap();
    let mut some = [0; 1000];
    reader.read_exact(&mut some).await.unwrap();
    change.await;
    let mut rest = Vec::new();
    let error = soon("an error", reader.read_to_end(&mut rest)).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(
        error.to_string().contains("overwritten or deleted"),
        "{error}"
    );
    assert_eq!(reader.read(&mut some).await.unwrap(), 0);
}

#[tokio::test]
async fn an_object_that_is_deleted_or_overwritten_while_it_is_read_is_an_error_and_no_hang() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let object = store.object("a").unwrap();
    changed_while_read(&object, async {
        object.delete().await.unwrap();
    })
    .await;
    changed_while_read(&object, async {
        object.put(&vec![1]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_wrong_digest_and_a_missing_chunk_are_errors() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let object = store.object("a").unwrap();
    let info = object.put_reader(&pattern(3 * CHUNK)[..]).await.unwrap();
    let stream = nats.js.get_stream("OBJ_o").await.unwrap();

    // A chunk that is gone.
    stream.delete_message(2).await.unwrap();
    match soon("an error", object.bytes()).await {
        Err(StoreError::Digest { reason, .. }) => {
            assert!(reason.starts_with("2 chunks came of 3"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    // Another one in its place.
    let subject = format!("$O.o.C.{}", info.nuid);
    let ack = nats.js.publish(subject, pattern(CHUNK)).await.unwrap();
    ack.await.unwrap();
    let mut reader = object.reader().await.unwrap().unwrap();
    let mut seen = Vec::new();
    let error = reader.read_to_end(&mut seen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.to_string().contains("its digest is"), "{error}");
    assert_eq!(seen.len(), 2 * CHUNK);
}

#[tokio::test]
async fn names_are_any_text_and_an_illegal_one_is_refused_before_the_upload() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let names = ["a b", "a/b/../c", "*.>", "ünï コード", "a\r\nb", "."];
    for (value, name) in (0..).zip(names) {
        store.object(name).unwrap().put(&vec![value]).await.unwrap();
    }
    for (value, name) in (0..).zip(names) {
        let stored = store.object(name).unwrap().get().await.unwrap().unwrap();
        assert_eq!(
            (stored.value, stored.info.name.as_str()),
            (vec![value], name)
        );
    }
    let listed: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
    let listed: Vec<_> = listed.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(listed, names);
    for name in ["", &"x".repeat(769)] {
        assert!(matches!(
            store.object(name),
            Err(StoreError::ObjectName { .. })
        ));
    }
}

#[tokio::test]
async fn a_list_ends_on_an_empty_bucket_and_leaves_deleted_objects_out() {
    let nats = Nats::start().await;
    let store = bucket::<Vec<u32>>(&nats).await;
    let list = store.list().await.unwrap();
    assert_eq!(soon("the end", list.count()).await, 0);
    let mut watch = store.watch().await.unwrap();
    assert!(matches!(
        soon("the marker", watch.next()).await,
        Some(Ok(ObjectEvent::InitialDone))
    ));
    for name in ["a", "b"] {
        store.object(name).unwrap().put(&vec![1]).await.unwrap();
    }
    store.object("a").unwrap().delete().await.unwrap();
    let listed: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "b"));
    let mut events = Vec::new();
    for _ in 0..3 {
        match soon("a change", watch.next()).await {
            Some(Ok(ObjectEvent::Changed(info))) => events.push((info.name, info.deleted)),
            other => panic!("{other:?}"),
        }
    }
    let expected = [("a", false), ("b", false), ("a", true)];
    assert_eq!(events, expected.map(|(n, d)| (n.to_owned(), d)));
}

#[tokio::test]
async fn a_missing_or_sealed_bucket_says_so() {
    let nats = Nats::start().await;
    let missing = ObjectStore::<Vec<u32>>::bind(nats.js.clone(), "nowhere").unwrap();
    for error in [
        missing
            .object("a")
            .unwrap()
            .put(&vec![1])
            .await
            .unwrap_err(),
        missing.object("a").unwrap().get().await.unwrap_err(),
        missing.list().await.unwrap_err(),
    ] {
        assert!(
            matches!(&error, StoreError::BucketNotFound { bucket } if bucket == "nowhere"),
            "{error:?}"
        );
    }
    let store = bucket::<Vec<u32>>(&nats).await;
    let object = store.object("a").unwrap();
    object.put(&vec![1]).await.unwrap();
    let mut other = nats.js.get_object_store("o").await.unwrap();
    other.seal().await.unwrap();
    assert!(store.status().await.unwrap().sealed);
    let refused = object.put(&vec![2]).await;
    assert!(matches!(refused, Err(StoreError::Sealed)), "{refused:?}");
    assert_eq!(object.get().await.unwrap().unwrap().value, [1]);
}
