//! Object stores, shared with other clients.

use crate::{decode, each_language, encode};
use futures_util::TryStreamExt as _;
use nats_service::{ObjectStore, StoreError};
use nats_service_tests::Nats;
use nats_service_tests::foreign::Peer;
use serde_json::{Value, json};

const CHUNK: usize = 128 * 1024;

each_language! {
    every_size_around_a_chunk_is_the_same_on_both_sides
    odd_names_are_the_same_on_both_sides
    what_one_side_overwrites_or_deletes_the_other_sees_and_no_chunk_stays
    descriptions_and_headers_are_the_same_on_both_sides
    their_seal_is_ours
}

async fn bucket(nats: &Nats) -> ObjectStore<()> {
    nats.object_bucket("o").await;
    ObjectStore::bind(nats.js.clone(), "o").expect("a store")
}

fn pattern(size: usize) -> Vec<u8> {
    let bytes = (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8);
    bytes.collect()
}

fn at(name: &str) -> Value {
    json!({"bucket": "o", "name": name})
}

fn put(name: &str, bytes: impl AsRef<[u8]>) -> Value {
    json!({"bucket": "o", "name": name, "data": encode(bytes)})
}

async fn every_size_around_a_chunk_is_the_same_on_both_sides(mut peer: Peer, nats: Nats) {
    peer.must("obj_make", json!({"bucket": "o"})).await;
    let store = ObjectStore::<()>::bind(nats.js.clone(), "o").unwrap();
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
        let bytes = pattern(size);
        let theirs = peer.must("obj_put", put("theirs", &bytes)).await;
        let object = store.object("theirs").unwrap();
        let info = object.info().await.unwrap().unwrap();
        assert_eq!(object.bytes().await.unwrap().unwrap(), bytes, "{size}");
        assert_eq!(
            (info.size, json!(info.chunks)),
            (size as u64, theirs["chunks"].clone())
        );
        let ours = store.object("ours").unwrap();
        let ours = ours.put_reader(&bytes[..]).await.unwrap();
        let got = peer.must("obj_get", at("ours")).await;
        assert_eq!(decode(&got["data"]), bytes, "{size}");
        assert_eq!(got["info"]["size"], ours.size);
        assert_eq!(got["info"]["chunks"], ours.chunks);
        assert_eq!(got["info"]["digest"], *ours.digest.as_ref().unwrap());
        // The same bytes have the same digest, written in the same way.
        assert_eq!(info.digest, ours.digest, "{size}");
    }
}

async fn odd_names_are_the_same_on_both_sides(mut peer: Peer, nats: Nats) {
    let store = bucket(&nats).await;
    let (long, wide) = ("x".repeat(255), "ü".repeat(255));
    let names = [
        "a b",
        " ",
        "a/b/../c",
        "/",
        "*.>",
        "ünï コード 🦀",
        "a\r\nb",
        ".",
        "?&=+",
        "\"quoted\"",
        &long,
        &wide,
    ];
    let mut expected = Vec::new();
    for name in names {
        peer.must("obj_put", put(name, name)).await;
        let object = store.object(name).unwrap();
        let info = object.info().await.unwrap().unwrap();
        assert_eq!(info.name, name);
        assert_eq!(object.bytes().await.unwrap().unwrap(), name.as_bytes());
        let ours = format!("{name} of ours");
        let object = store.object(&ours).unwrap();
        object.put_reader(name.as_bytes()).await.unwrap();
        let got = peer.must("obj_get", at(&ours)).await;
        assert_eq!(decode(&got["data"]), name.as_bytes());
        assert_eq!(got["info"]["name"], ours);
        expected.extend([name.to_owned(), ours]);
    }
    let ours: Vec<_> = store.list().await.unwrap().try_collect().await.unwrap();
    let ours: Vec<_> = ours.into_iter().map(|info| info.name).collect();
    assert_eq!(ours, expected);
    let theirs = peer.must("obj_list", json!({"bucket": "o"})).await;
    assert_eq!(theirs.as_array().map(Vec::len), Some(expected.len()));
}

async fn what_one_side_overwrites_or_deletes_the_other_sees_and_no_chunk_stays(
    mut peer: Peer,
    nats: Nats,
) {
    let store = bucket(&nats).await;
    let object = store.object("a").unwrap();
    let chunks = async || nats.messages("OBJ_o", "$O.o.C.>").await;
    for _ in 0..2 {
        peer.must("obj_put", put("a", pattern(3 * CHUNK))).await;
        object.put_reader(&pattern(2 * CHUNK)[..]).await.unwrap();
        assert_eq!(chunks().await, 2);
        let bytes = pattern(CHUNK / 2);
        peer.must("obj_put", put("a", &bytes)).await;
        assert_eq!(object.bytes().await.unwrap().unwrap(), bytes);
        assert_eq!(chunks().await, 1);
        // Theirs, deleted by us.
        assert!(object.delete().await.unwrap());
        assert_eq!(peer.must("obj_info", at("a")).await, Value::Null);
        assert_eq!(
            peer.must("obj_list", json!({"bucket": "o"})).await,
            json!([])
        );
        assert_eq!(chunks().await, 0);
        // Ours, deleted by them.
        object.put_reader(&bytes[..]).await.unwrap();
        peer.must("obj_delete", at("a")).await;
        assert!(object.info().await.unwrap().is_none());
        assert!(object.reader().await.unwrap().is_none());
        assert!(!object.delete().await.unwrap());
        assert_eq!(chunks().await, 0);
    }
}

async fn descriptions_and_headers_are_the_same_on_both_sides(mut peer: Peer, nats: Nats) {
    let store = bucket(&nats).await;
    let mut request = put("theirs", "bytes");
    request["description"] = "what for".into();
    request["headers"] = json!({"Content-Type": "text/plain"});
    peer.must("obj_put", request).await;
    let object = store.object("theirs").unwrap();
    let info = object.info().await.unwrap().unwrap();
    assert_eq!(info.description.as_deref(), Some("what for"));
    assert_eq!(info.content_type(), Some("text/plain"));
    let described = json!({"bucket": "o", "name": "theirs", "description": "something else"});
    peer.must("obj_describe", described).await;
    let info = object.info().await.unwrap().unwrap();
    assert_eq!(info.description.as_deref(), Some("something else"));
    assert_eq!(info.content_type(), Some("text/plain"));
    assert_eq!(object.bytes().await.unwrap().unwrap(), "bytes");
    // A typed value of ours says its codec.
    let typed = ObjectStore::<Vec<u8>>::bind(nats.js.clone(), "o").unwrap();
    typed
        .object("ours")
        .unwrap()
        .put(&vec![1, 2])
        .await
        .unwrap();
    let got = peer.must("obj_get", at("ours")).await;
    assert_eq!(decode(&got["data"]), b"[1,2]");
    assert_eq!(
        got["info"]["headers"]["Content-Type"],
        json!(["application/json"])
    );
}

async fn their_seal_is_ours(mut peer: Peer, nats: Nats) {
    let store = bucket(&nats).await;
    let object = store.object("a").unwrap();
    object.put_reader(&b"kept"[..]).await.unwrap();
    peer.must("obj_seal", json!({"bucket": "o"})).await;
    assert!(store.status().await.unwrap().sealed);
    let refused = object.put_reader(&b"more"[..]).await;
    assert!(matches!(refused, Err(StoreError::Sealed)), "{refused:?}");
    assert_eq!(object.bytes().await.unwrap().unwrap(), "kept");
}
