//! Downloads: ranges, going on, and what breaks on the way.

use async_nats::jetstream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{ObjectKey, ObjectStore, StoreError};
use nats_service_testkit::Proxy;
use nats_service_tests::objects::{CHUNK, bucket, pattern};
use nats_service_tests::{Nats, processed, soon, until};
use std::sync::atomic::Ordering;
use tokio::io::AsyncReadExt as _;

async fn range(object: &ObjectKey<()>, range: impl std::ops::RangeBounds<u64>) -> Vec<u8> {
    let reader = object.range(range).await.unwrap().unwrap();
    let length = reader.length();
    let chunks: Vec<_> = soon("the range", reader.try_collect()).await.unwrap();
    let bytes = chunks.concat();
    assert_eq!(bytes.len() as u64, length);
    bytes
}

#[tokio::test]
async fn a_range_is_those_bytes_wherever_it_begins_and_ends() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    let object = store.object("a").unwrap();
    let bytes = pattern(5 * CHUNK + 100);
    object.put_reader(&bytes[..]).await.unwrap();
    let chunk = CHUNK as u64;
    let size = bytes.len() as u64;
    for (start, end) in [
        (0, 1),
        (0, size),
        (chunk - 1, chunk + 1),
        (chunk, 2 * chunk),
        (2 * chunk + 3, 4 * chunk + 5),
        (5 * chunk, size),
        (size - 1, size),
        (size, size),
        (7, 7),
        (10, u64::MAX),
    ] {
        let expected = &bytes[start as usize..end.min(size) as usize];
        assert!(
            range(&object, start..end).await == expected,
            "{start}..{end}"
        );
    }
    assert!(range(&object, ..).await == bytes);
    assert!(range(&object, ..=9).await == bytes[..10]);
    assert!(range(&object, size - 3..).await == bytes[bytes.len() - 3..]);
    #[allow(clippy::reversed_empty_ranges)]
    for refused in [object.range(size + 1..).await, object.range(5..4).await] {
        assert!(matches!(refused, Err(StoreError::Range { size: told, .. }) if told == size));
    }
    let empty = store.object("empty").unwrap();
    empty.put_reader(&b""[..]).await.unwrap();
    assert!(range(&empty, ..).await.is_empty());
    assert!(
        store
            .object("none")
            .unwrap()
            .range(..)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_range_of_interleaved_and_of_uneven_chunks_is_right() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    // Two uploads at once, so that neither has its chunks side by side.
    let bytes = pattern(40 * CHUNK);
    let (a, b) = (store.object("a").unwrap(), store.object("b").unwrap());
    let (one, two) = tokio::join!(a.put_reader(&bytes[..]), b.put_reader(&bytes[..]));
    one.and(two).unwrap();
    for object in [&a, &b] {
        let (start, end) = (30 * CHUNK + 9, 33 * CHUNK);
        assert!(range(object, start as u64..end as u64).await == bytes[start..end]);
    }
    // Another client's, whose chunks are as large as its reads were.
    let client = nats.js.get_object_store("o").await.unwrap();
    let mut uneven = bytes[..1000]
        .chain(&bytes[1000..5 * CHUNK])
        .chain(&bytes[5 * CHUNK..6 * CHUNK]);
    client.put("uneven", &mut uneven).await.unwrap();
    let uneven = store.object("uneven").unwrap();
    for start in [
        0,
        999,
        1000,
        1001,
        CHUNK,
        3 * CHUNK + 1000,
        5 * CHUNK - 1,
        5 * CHUNK,
    ] {
        let end = (start + 2 * CHUNK).min(6 * CHUNK);
        assert!(
            range(&uneven, start as u64..end as u64).await == bytes[start..end],
            "{start}"
        );
    }
}

#[tokio::test]
async fn only_the_chunks_of_a_range_are_fetched() {
    let nats = Nats::start().await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    object.put_reader(&pattern(400 * CHUNK)[..]).await.unwrap();
    let received = || nats.client.statistics().in_bytes.load(Ordering::Relaxed);
    let before = received();
    let (start, end) = (200 * CHUNK as u64 + 10, 202 * CHUNK as u64);
    assert_eq!(range(&object, start..end).await.len(), 2 * CHUNK - 10);
    // Let whatever else was asked for arrive.
    nats_service_tests::processed(&nats.client).await;
    let fetched = received() - before;
    assert!(fetched < 3 * CHUNK as u64, "{fetched}");
}

#[tokio::test]
async fn a_download_goes_on_after_a_broken_connection() {
    let nats = Nats::start().await;
    let store = bucket::<()>(&nats).await;
    let bytes = pattern(300 * CHUNK);
    store
        .object("a")
        .unwrap()
        .put_reader(&bytes[..])
        .await
        .unwrap();
    let proxy = Proxy::start(nats.server.url()).await.unwrap();
    let js = jetstream::new(async_nats::connect(proxy.url()).await.unwrap());
    let object = ObjectStore::<()>::bind(js, "o")
        .unwrap()
        .object("a")
        .unwrap();
    let mut reader = object.reader().await.unwrap().unwrap();
    let mut seen = Vec::new();
    while let Some(chunk) = soon("a chunk", reader.next()).await {
        seen.extend_from_slice(&chunk.unwrap());
        if seen.len() % (90 * CHUNK) == 0 {
            proxy.cut().await.unwrap();
            proxy.pass().await.unwrap();
        }
    }
    assert!(seen == bytes);
    drop(reader);
    until("no consumer is left", async || {
        nats.consumers("OBJ_o").await == 0
    })
    .await;
}

#[tokio::test]
async fn a_download_goes_on_in_another_process_and_is_verified_as_a_whole() {
    let nats = Nats::start().await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    let bytes = pattern(10 * CHUNK + 50);
    object.put_reader(&bytes[..]).await.unwrap();
    for here in [0, 1, 3 * CHUNK, 3 * CHUNK + 7, bytes.len() - 1, bytes.len()] {
        let mut reader = object.reader_after(&bytes[..here]).await.unwrap().unwrap();
        assert_eq!(reader.length(), (bytes.len() - here) as u64);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert!(rest == bytes[here..], "{here}");
    }
    // What is here is of something else.
    let mut other = bytes[..3 * CHUNK].to_vec();
    other[0] ^= 1;
    let mut reader = object.reader_after(&other[..]).await.unwrap().unwrap();
    let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("its digest is"), "{error}");
    other.resize(bytes.len(), 0);
    let mut reader = object.reader_after(&other[..]).await.unwrap().unwrap();
    assert!(reader.read_to_end(&mut Vec::new()).await.is_err());
    other.push(0);
    let longer = object.reader_after(&other[..]).await;
    assert!(
        matches!(longer, Err(StoreError::Range { .. })),
        "{longer:?}"
    );
}

#[tokio::test]
async fn a_reader_that_pauses_holds_a_bounded_part_and_goes_on() {
    let nats = Nats::start().await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    let bytes = pattern(400 * CHUNK);
    object.put_reader(&bytes[..]).await.unwrap();
    let received = || nats.client.statistics().in_bytes.load(Ordering::Relaxed);
    let before = received();
    let mut reader = object.reader().await.unwrap().unwrap();
    let first = reader.next_chunk().await.unwrap().unwrap();
    // Nothing is on its way any more when an answer of the server, and another one, comes with nothing else before it.
    let mut last = received();
    until("what was asked for has come", async || {
        let mut alone = true;
        for _ in 0..3 {
            processed(&nats.client).await;
            let now = received();
            alone &= now - last < CHUNK as u64;
            last = now;
        }
        alone
    })
    .await;
    let held = last - before;
    assert!(held < 9 << 20, "{held}");
    // Meanwhile the server forgets that somebody reads.
    let stream = nats.js.get_stream("OBJ_o").await.unwrap();
    let names: Vec<_> = stream.consumer_names().try_collect().await.unwrap();
    for name in names {
        stream.delete_consumer(&name).await.unwrap();
    }
    let mut seen = first.to_vec();
    soon("the rest", reader.read_to_end(&mut seen))
        .await
        .unwrap();
    assert!(seen == bytes);
}

#[tokio::test]
async fn an_error_comes_once_and_last_however_it_is_read() {
    let nats = Nats::start().await;
    let object = bucket::<()>(&nats).await.object("a").unwrap();
    object.put_reader(&pattern(3 * CHUNK)[..]).await.unwrap();
    let stream = nats.js.get_stream("OBJ_o").await.unwrap();
    let chunk = stream.get_raw_message(2).await.unwrap();
    stream.delete_message(2).await.unwrap();
    nats.js
        .publish(chunk.subject, chunk.payload)
        .await
        .unwrap()
        .await
        .unwrap();
    let reader = object.reader().await.unwrap().unwrap();
    let items: Vec<_> = soon("the end", reader.collect::<Vec<_>>()).await;
    assert!(
        matches!(&items[..], [Ok(_), Ok(_), Err(StoreError::Digest { .. })]),
        "{items:?}"
    );
    let mut reader = object.reader().await.unwrap().unwrap();
    let mut seen = Vec::with_capacity(10);
    assert!(reader.read_to_end(&mut seen).await.is_err());
    assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 0);
    assert!(reader.next_chunk().await.unwrap().is_none());
    // A range of it is not verified, but a missing chunk is noticed.
    let missing = object.range(CHUNK as u64..).await.unwrap().unwrap();
    let got: Vec<_> = missing.try_collect().await.unwrap();
    assert_eq!(got.concat().len(), 2 * CHUNK);
    stream.delete_message(3).await.unwrap();
    let missing = object.range(CHUNK as u64..).await;
    let missing = async { missing?.expect("an object").try_collect::<Vec<_>>().await };
    let missing = soon("an error", missing).await;
    assert!(
        matches!(missing, Err(StoreError::Digest { .. })),
        "{missing:?}"
    );
}
