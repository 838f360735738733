//! Readers, writers and keepers of object buckets.

use super::{DENIED, Note, as_user, note, server, user, user_without};
use bytes::Bytes;
use futures_util::StreamExt as _;
use nats_service::{ObjectEvent, ObjectStore, StoreError};
use nats_service_tests::soon;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

#[tokio::test]
async fn a_reader_of_an_object_bucket_needs_no_more_and_cannot_write() {
    let server = server(&[user("reader", &["A reader of an object bucket"])]).await;
    let js = as_user(&server, "operator").await;
    let writer = ObjectStore::<()>::bind(js, "files").expect("a name");
    // So much that the server waits for the reader: it comes only with the right to answer flow control.
    let large = Bytes::from(vec![7; 10_000_000]);
    let object = writer.object("a file").expect("a name");
    object.put_reader(&large[..]).await.expect("an upload");

    let mut js = as_user(&server, "reader").await;
    let store = ObjectStore::<()>::bind(js.clone(), "files").expect("a name");
    let object = store.object("a file").expect("a name");
    let info = soon("info", object.info()).await.expect("it");
    assert_eq!(info.map(|info| info.size), Some(10_000_000));
    let bytes = soon("bytes", object.bytes()).await.expect("a read");
    assert_eq!(bytes, Some(large));
    let list = soon("list", store.list()).await.expect("it");
    assert_eq!(soon("all", list.count()).await, 1);
    let mut watch = soon("watch", store.watch()).await.expect("it");
    let event = soon("an event", watch.next()).await;
    assert!(matches!(event, Some(Ok(ObjectEvent::Changed(_)))));
    assert!(!soon("status", store.status()).await.expect("it").sealed);

    js.set_timeout(DENIED);
    let store = ObjectStore::<()>::bind(js, "files").expect("a name");
    let object = store.object("a file").expect("a name");
    let denied = soon("a denied write", object.put_reader(&b"x"[..])).await;
    assert!(denied.is_err(), "{denied:?}");
}

/// The right to answer flow control is one to be fast: what is read without it comes in windows of some 2 MB.
#[tokio::test]
async fn without_flow_control_a_large_object_comes_all_the_same() {
    let roles = ["A reader of an object bucket"];
    let server = server(&[user_without("reader", &roles, Some("$JS.FC."))]).await;
    let js = as_user(&server, "operator").await;
    let large: Bytes = (0..10_000_000_u32).map(|i| (i >> 13) as u8).collect();
    let writer = ObjectStore::<()>::bind(js, "files").expect("a name");
    let object = writer.object("a file").expect("a name");
    object.put_reader(&large[..]).await.expect("an upload");

    let js = as_user(&server, "reader").await;
    let store = ObjectStore::<()>::bind(js, "files").expect("a name");
    let object = store.object("a file").expect("a name");
    let bytes = soon("bytes", object.bytes()).await.expect("a read");
    assert!(bytes == Some(large));
}

#[tokio::test]
async fn a_keeper_of_an_object_bucket_can_sweep_and_seal() {
    let roles = [
        "A reader of an object bucket",
        "A writer of an object bucket",
        "A keeper of an object bucket",
    ];
    let server = server(&[user("keeper", &roles)]).await;
    let js = as_user(&server, "keeper").await;
    let store = ObjectStore::<()>::bind(js, "files").expect("a name");
    let upload = store.object("a").expect("a name").upload().resumable();
    let broken = nats_service_tests::objects::failing(&[7; 200_000], 200_000);
    assert!(upload.read_from(broken).await.is_err());
    let swept = soon("a sweep", store.remove_orphans(Duration::ZERO)).await;
    assert_eq!(swept.expect("it is allowed").uploads, 1);
    let swept = soon("a sweep", store.remove_unshared(Duration::ZERO)).await;
    assert_eq!(swept.expect("it is allowed"), (0, 0));
    soon("the seal", store.seal()).await.expect("it is allowed");
}

#[tokio::test]
async fn a_writer_of_an_object_bucket_can_put_get_replace_and_delete() {
    let roles = [
        "A reader of an object bucket",
        "A writer of an object bucket",
    ];
    let server = server(&[user("writer", &roles)]).await;
    let js = as_user(&server, "writer").await;
    let store = ObjectStore::<Note>::bind(js, "files").expect("a name");
    let object = store.object("a file").expect("a name");
    let all = async {
        object.put(&note("a", "1")).await?;
        object.put(&note("a", "2")).await?;
        let got = object.get().await?;
        assert_eq!(got.map(|object| object.value), Some(note("a", "2")));
        let mut text = Vec::new();
        if let Some(mut reader) = object.reader().await? {
            reader.read_to_end(&mut text).await.expect("its bytes");
        }
        assert!(!text.is_empty());
        object
            .range(1..3)
            .await?
            .expect("an object")
            .next_chunk()
            .await?;
        object
            .describe(|meta| meta.description = Some("said".into()))
            .await?;
        object.rename("another").await?;
        let another = store.object("another")?;
        object.link_to(&another).await?;
        assert!(object.delete().await?);
        assert!(another.delete().await?);
        assert!(another.get().await?.is_none());
        // An upload that goes on, from a source that has changed.
        let bytes = vec![7; 300_000];
        let upload = another.upload().resumable();
        let token = upload.token();
        let broken = nats_service_tests::objects::failing(&bytes, 200_000);
        assert!(upload.read_from(broken).await.is_err());
        store.resume(&token)?.read_from(&bytes[1..]).await?;
        store.resume(&token)?.read_from(&[8; 10][..]).await?;
        let upload = another.upload().resumable();
        let token = upload.token();
        let broken = nats_service_tests::objects::failing(&bytes, 200_000);
        assert!(upload.read_from(broken).await.is_err());
        store.resume(&token)?.read_from(&[8; 10][..]).await?;
        assert!(another.delete().await?);
        Ok::<(), StoreError>(())
    };
    soon("all operations", all).await.expect("all are allowed");
    // The purges of what was replaced were allowed too: nothing but the marks of the deletions are left.
    let js = as_user(&server, "operator").await;
    let stream = js.get_stream("OBJ_files").await.expect("the stream");
    assert_eq!(stream.cached_info().state.messages, 2);
}
