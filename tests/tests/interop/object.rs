//! Object stores, shared with other clients.

use crate::{decode, each_language, encode};
use futures_util::TryStreamExt as _;
use nats_service::{ObjectStore, StoreError};
use nats_service_tests::foreign::{Language, Peer};
use nats_service_tests::objects::failing;
use nats_service_tests::{Nats, until};
use serde_json::{Value, json};
use std::time::Duration;

/// The chunks of other clients, and ours.
const CHUNK: usize = 128 * 1024;
const OURS: usize = 127 * 1024;

each_language! {
    every_size_around_a_chunk_is_the_same_on_both_sides
    odd_names_are_the_same_on_both_sides
    what_one_side_overwrites_or_deletes_the_other_sees_and_no_chunk_stays
    descriptions_and_headers_are_the_same_on_both_sides
    links_lead_to_the_same_bytes_on_both_sides
    bytes_that_are_stored_once_have_all_their_names_on_both_sides
    a_renamed_or_resumed_object_is_whole_on_both_sides
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
    let theirs = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7];
    for size in theirs.into_iter().chain([OURS - 1, OURS, OURS + 1]) {
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
        object.put_reader(&pattern(2 * OURS)[..]).await.unwrap();
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

async fn links_lead_to_the_same_bytes_on_both_sides(mut peer: Peer, nats: Nats) {
    let store = bucket(&nats).await;
    peer.must("obj_make", json!({"bucket": "other"})).await;
    let other = ObjectStore::<()>::bind(nats.js.clone(), "other").unwrap();
    peer.must("obj_put", put("target", "bytes")).await;
    // Ours, of the same bucket and of another one.
    let (target, near) = (
        store.object("target").unwrap(),
        store.object("a near one").unwrap(),
    );
    near.link_to(&target).await.unwrap();
    let far = other.object("a far one").unwrap();
    far.link_to(&target).await.unwrap();
    for at in [
        at("a near one"),
        json!({"bucket": "other", "name": "a far one"}),
    ] {
        let link = peer.must("obj_info", at.clone()).await["link"].clone();
        assert_eq!(link, json!({"bucket": "o", "name": "target"}));
        let got = peer.must("obj_get", at).await;
        assert_eq!(decode(&got["data"]), b"bytes");
    }
    store
        .object("all")
        .unwrap()
        .link_to_bucket("other")
        .await
        .unwrap();
    let link = peer.must("obj_info", at("all")).await["link"].clone();
    assert_eq!(link, json!({"bucket": "other", "name": null}));
    assert!(peer.ask("obj_get", at("all")).await.is_err());
    // Theirs.
    if peer.language() == Language::Node {
        let link =
            json!({"bucket": "other", "name": "theirs", "target_bucket": "o", "target": "target"});
        peer.must("obj_link", link).await;
        let theirs = other.object("theirs").unwrap();
        assert_eq!(theirs.bytes().await.unwrap().unwrap(), "bytes");
        theirs.rename("still theirs").await.unwrap();
        let link = json!({"bucket": "o", "name": "their all", "target_bucket": "other"});
        peer.must("obj_link_store", link).await;
        let info = store
            .object("their all")
            .unwrap()
            .info()
            .await
            .unwrap()
            .unwrap();
        let link = info.link.unwrap();
        assert_eq!((&*link.bucket, link.name), ("other", None));
        let renamed = json!({"bucket": "other", "name": "still theirs"});
        let got = peer.must("obj_get", renamed).await;
        assert_eq!(decode(&got["data"]), b"bytes");
    }
    // A link that one side deletes is gone on the other; its target is not.
    near.delete().await.unwrap();
    assert_eq!(peer.must("obj_info", at("a near one")).await, Value::Null);
    peer.must(
        "obj_delete",
        json!({"bucket": "other", "name": "a far one"}),
    )
    .await;
    assert!(far.reader().await.unwrap().is_none());
    assert_eq!(target.bytes().await.unwrap().unwrap(), "bytes");
}

async fn bytes_that_are_stored_once_have_all_their_names_on_both_sides(mut peer: Peer, nats: Nats) {
    let store = bucket(&nats).await;
    let bytes = pattern(2 * CHUNK + 1);
    for name in ["one", "two"] {
        let upload = store.object(name).unwrap().upload().shared();
        upload.read_from(&bytes[..]).await.unwrap();
    }
    until("they are there once", async || {
        nats.messages("OBJ_o", "$O.o.C.>").await == 3
    })
    .await;
    for name in ["one", "two"] {
        let got = peer.must("obj_get", at(name)).await;
        assert_eq!(decode(&got["data"]), bytes);
    }
    // What they do to one name leaves the other alone.
    peer.must("obj_put", put("one", "else")).await;
    let two = store.object("two").unwrap();
    assert_eq!(two.bytes().await.unwrap().unwrap(), bytes);
    peer.must("obj_delete", at("two")).await;
    assert!(two.info().await.unwrap().is_none());
    let swept = store.remove_unshared(Duration::ZERO).await.unwrap();
    assert_eq!(swept, (1, bytes.len() as u64));
    let one = store.object("one").unwrap();
    assert_eq!(one.bytes().await.unwrap().unwrap(), "else");
}

async fn a_renamed_or_resumed_object_is_whole_on_both_sides(mut peer: Peer, nats: Nats) {
    let store = bucket(&nats).await;
    let bytes = pattern(3 * CHUNK + 1);
    let upload = store.object("old").unwrap().upload().resumable();
    let token = upload.token();
    let broken = upload.read_from(failing(&bytes, 2 * CHUNK + 5)).await;
    assert!(matches!(broken, Err(StoreError::Source(_))), "{broken:?}");
    let upload = store.resume(&token).unwrap();
    upload
        .description("what for")
        .read_from(&bytes[..])
        .await
        .unwrap();
    store.object("old").unwrap().rename("new").await.unwrap();
    assert_eq!(peer.must("obj_info", at("old")).await, Value::Null);
    let got = peer.must("obj_get", at("new")).await;
    assert_eq!(decode(&got["data"]), bytes);
    assert_eq!(got["info"]["description"], "what for");
    // They overwrite and delete the old name; the bytes have another one.
    peer.must("obj_put", put("old", "else")).await;
    peer.must("obj_delete", at("old")).await;
    let new = store.object("new").unwrap();
    assert_eq!(new.bytes().await.unwrap().unwrap(), bytes);
    // And parts of theirs.
    peer.must("obj_put", put("theirs", &bytes)).await;
    let theirs = store.object("theirs").unwrap();
    let (start, end) = (2 * CHUNK - 3, 3 * CHUNK + 1);
    let part: Vec<_> = theirs
        .range(start as u64..end as u64)
        .await
        .unwrap()
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(part.concat(), bytes[start..end]);
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
