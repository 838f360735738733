//! Settings as JSON, without a server: what is made, compared, changed and merged.

use super::*;
use crate::store::{BucketSpec, Storage};

#[test]
fn a_new_bucket_is_what_the_records_say_and_what_is_named() {
    let settings = BucketSettings::new("b")
        .ttl(Duration::from_secs(60))
        .storage(Storage::Memory);
    let kv = settings.clone().history(5).new_stream(StoreKind::Kv);
    assert_eq!(kv["name"], "KV_b");
    assert_eq!(kv["subjects"], json!(["$KV.b.>"]));
    assert_eq!(kv["max_msgs_per_subject"], 5);
    assert_eq!(kv["max_age"], 60_000_000_000_u64);
    assert_eq!(kv["duplicate_window"], 60_000_000_000_u64);
    assert_eq!(kv["storage"], "memory");
    assert_eq!(kv["deny_delete"], true);
    let object = settings.new_stream(StoreKind::Object);
    assert_eq!(object["subjects"], json!(["$O.b.C.>", "$O.b.M.>"]));
    assert!(object.get("max_msgs_per_subject").is_none());
    assert!(object.get("deny_delete").is_none());
}

#[test]
fn an_attribute_names_what_a_program_does() {
    let minute = Duration::from_secs(60);
    let spec = BucketSpec {
        name: "b",
        history: Some(5),
        ttl: Some(minute),
        key_ttl: Some(true),
        limit_markers: Some(minute),
        description: Some("what for"),
        replicas: Some(3),
        storage: Some(Storage::Memory),
        max_bytes: Some(1 << 30),
        max_value_size: Some(1 << 20),
        compression: Some(true),
        atomic: Some(true),
        fast_ingest: Some(false),
        provision: Provision::Warn,
    };
    let program = BucketSettings::new("b")
        .history(5)
        .ttl(minute)
        .key_ttl(true)
        .limit_markers(minute)
        .description("what for")
        .replicas(3)
        .storage(Storage::Memory)
        .max_bytes(1 << 30)
        .max_value_size(1 << 20)
        .compression(true)
        .atomic(true)
        .fast_ingest(false)
        .provision(Provision::Warn);
    let attribute = BucketSettings::from(&spec);
    assert_eq!(
        attribute.new_stream(StoreKind::Kv),
        program.new_stream(StoreKind::Kv)
    );
    assert_eq!(attribute.named.len(), 12);
    assert_eq!(attribute.provision, program.provision);
}

#[test]
fn only_what_is_named_is_compared_and_both_values_are_said() {
    let server =
        json!({"max_msgs_per_subject": 1, "max_age": 0, "num_replicas": 3, "storage": "file"});
    assert_eq!(BucketSettings::new("b").differences(&server), []);
    let wanted = BucketSettings::new("b")
        .history(5)
        .ttl(Duration::from_secs(5400))
        .compression(false);
    let texts: Vec<_> = wanted.differences(&server);
    let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "`history` is to be 5 and is 1 on the server",
            "`ttl` is to be \"90m\" and is without end on the server",
        ]
    );
}

#[test]
fn an_update_leaves_alone_what_is_not_named() {
    let mut config = json!({"max_age": 0, "duplicate_window": 120_000_000_000_u64, "allow_atomic": true, "max_bytes": 7});
    let settings = BucketSettings::new("b").ttl(Duration::from_secs(10));
    settings.apply(&mut config);
    let expected = json!({"max_age": 10_000_000_000_u64, "duplicate_window": 10_000_000_000_u64, "allow_atomic": true, "max_bytes": 7});
    assert_eq!(config, expected);
}

#[test]
fn the_highest_level_is_that_of_what_is_switched_on() {
    let settings = BucketSettings::new("b").history(5).fast_ingest(false);
    assert_eq!(settings.needs_level(), None);
    let settings = settings.limit_markers(Duration::from_secs(1)).atomic(true);
    assert_eq!(settings.needs_level(), Some(("atomic", 2)));
    let settings = settings.fast_ingest(true);
    assert_eq!(settings.needs_level(), Some(("fast_ingest", 4)));
}

#[test]
fn two_places_are_one_unless_they_contradict_each_other() {
    let five = BucketSettings::new("b").history(5);
    let mut both = five.clone().provision(Provision::None);
    both.merge(BucketSettings::new("b").ttl(Duration::from_secs(60)))
        .unwrap();
    both.merge(five.provision(Provision::None)).unwrap();
    assert_eq!(both.get(&HISTORY), Some(&json!(5)));
    assert_eq!(both.get(&TTL), Some(&json!(60_000_000_000_u64)));
    assert_eq!(both.provision, Provision::Create);
    let conflict = both.merge(BucketSettings::new("b").history(1)).unwrap_err();
    assert_eq!(
        (conflict.setting, &*conflict.first, &*conflict.second),
        ("history", "5", "1")
    );
}
