//! The settings of a bucket as those of its stream, and how two sets of them compare.
//!
//! Streams are handled as JSON, as the server sent it: a setting that this crate does not know survives an update.

use super::{BucketSpec, Provision, Storage};
use crate::wire::spec::StoreKind;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// The server's default, and its bound, for how long it remembers message ids.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A setting that is named and that the server has otherwise.
///
/// Every part is as it is written in an attribute: `history`, `5`, `1`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The attribute's option, or the method of `BucketSettings`.
    pub setting: &'static str,
    /// What is named.
    pub wanted: String,
    /// What the bucket has.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting,
            wanted,
            found,
        } = self;
        write!(
            f,
            "`{setting}` is to be {wanted} and is {found} on the server"
        )
    }
}

/// Two places want one bucket with different settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "bucket `{bucket}` is wanted with `{setting}` = {first} and with `{setting}` = {second}: name the setting in one place only, or the same in both"
)]
#[non_exhaustive]
pub struct BucketConflict {
    /// The bucket.
    pub bucket: String,
    /// The attribute's option.
    pub setting: &'static str,
    /// What the one place says.
    pub first: String,
    /// What the other one says.
    pub second: String,
}

/// A named setting, and how its stream has it.
pub(crate) struct Named {
    pub(super) setting: &'static str,
    field: &'static str,
    value: Value,
    text: fn(&Value) -> String,
}

/// One setting, if it is named.
pub(super) fn setting(
    setting: &'static str,
    field: &'static str,
    value: Option<Value>,
    text: fn(&Value) -> String,
) -> Option<Named> {
    value.map(|value| Named {
        setting,
        field,
        value,
        text,
    })
}

/// What is wanted of a bucket, by an attribute or by a program.
pub(crate) trait Settings: Sync {
    /// The bucket's name.
    fn name(&self) -> &str;
    /// What to do when it is there, or is not.
    fn provision(&self) -> Provision;
    /// What is named.
    fn named(&self, kind: StoreKind) -> Vec<Named>;
}

impl Settings for BucketSpec {
    fn name(&self) -> &str {
        self.name
    }

    fn provision(&self) -> Provision {
        self.provision
    }

    fn named(&self, kind: StoreKind) -> Vec<Named> {
        let kv = kind == StoreKind::Kv;
        let history = self.history.filter(|_| kv).map(Value::from);
        let ttl = self.ttl.map(|ttl| json!(nanos(ttl)));
        let key_ttl = self.key_ttl.filter(|_| kv).map(Value::from);
        let markers = self.limit_markers.filter(|_| kv);
        let markers = markers.map(|ttl| json!(nanos(ttl)));
        let value_size = self.max_value_size.filter(|_| kv).map(Value::from);
        let storage = self.storage.map(|storage| match storage {
            Storage::File => json!("file"),
            Storage::Memory => json!("memory"),
        });
        let atomic = self.atomic.filter(|_| kv).map(Value::from);
        let fast_ingest = self.fast_ingest.filter(|_| kv).map(Value::from);
        let compression = self
            .compression
            .map(|on| json!(if on { "s2" } else { "none" }));
        [
            setting("history", "max_msgs_per_subject", history, number),
            setting("ttl", "max_age", ttl, duration),
            setting("key_ttl", KEY_TTL, key_ttl, boolean),
            setting("limit_markers", MARKERS, markers, duration),
            setting(
                "description",
                "description",
                self.description.map(Value::from),
                quoted,
            ),
            setting(
                "replicas",
                "num_replicas",
                self.replicas.map(Value::from),
                number,
            ),
            setting("storage", "storage", storage, quoted),
            setting(
                "max_bytes",
                "max_bytes",
                self.max_bytes.map(Value::from),
                number,
            ),
            setting("max_value_size", "max_msg_size", value_size, number),
            setting("compression", "compression", compression, compressed),
            setting("atomic", ATOMIC, atomic, boolean),
            setting("fast_ingest", FAST_INGEST, fast_ingest, boolean),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

const KEY_TTL: &str = "allow_msg_ttl";
const ATOMIC: &str = "allow_atomic";
/// ADR-50.
pub(super) const FAST_INGEST: &str = "allow_batched";
const MARKERS: &str = "subject_delete_marker_ttl";

impl dyn Settings + '_ {
    /// The stream behind the bucket.
    pub(crate) fn stream_name(&self, kind: StoreKind) -> String {
        match kind {
            StoreKind::Kv => format!("KV_{}", self.name()),
            StoreKind::Object => format!("OBJ_{}", self.name()),
        }
    }

    /// The setting that needs the highest API level, and that level: servers below drop it without a word.
    pub(super) fn needs_level(&self, kind: StoreKind) -> Option<(&'static str, u64)> {
        let level = |named: &Named| match named.field {
            FAST_INGEST if named.value == true => 4,
            ATOMIC if named.value == true => 2,
            KEY_TTL if named.value == true => 1,
            MARKERS => 1,
            _ => 0,
        };
        let named = self.named(kind).into_iter();
        let needed = named.map(|named| (named.setting, level(&named)));
        needed
            .max_by_key(|(_, level)| *level)
            .filter(|(_, level)| *level > 0)
    }

    /// The configuration of a stream that is to be made: ADR-8's and ADR-20's, with what is named.
    pub(super) fn new_stream(&self, kind: StoreKind) -> Value {
        let name = self.name();
        let subjects = match kind {
            StoreKind::Kv => vec![format!("$KV.{name}.>")],
            StoreKind::Object => vec![format!("$O.{name}.C.>"), format!("$O.{name}.M.>")],
        };
        let mut config = json!({
            "name": self.stream_name(kind),
            "subjects": subjects,
            "retention": "limits",
            "discard": "new",
            "storage": "file",
            "num_replicas": 1,
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_msg_size": -1,
            "max_age": 0,
            "duplicate_window": nanos(DUPLICATE_WINDOW),
            "allow_rollup_hdrs": true,
            "allow_direct": true,
        });
        if kind == StoreKind::Kv {
            config["max_msgs_per_subject"] = json!(1);
            config["deny_delete"] = json!(true);
        }
        self.apply(kind, &mut config);
        if config["mirror"].is_object() {
            // A mirror takes its origin's subjects, and none of its own.
            config["subjects"] = json!([]);
        }
        config
    }

    /// Writes what is named into a stream's configuration, and leaves everything else as it is.
    pub(super) fn apply(&self, kind: StoreKind, config: &mut Value) {
        for named in self.named(kind) {
            match named.field {
                // The server refuses a window that is longer than entries live.
                "max_age" => {
                    let (ttl, window) = (named.value.as_u64(), &config["duplicate_window"]);
                    if ttl > Some(0) && window.as_u64() > ttl {
                        config["duplicate_window"] = named.value.clone();
                    }
                }
                // And marks where keys may not end.
                MARKERS => config[KEY_TTL] = json!(true),
                _ => {}
            }
            merge(&mut config[named.field], named.value);
        }
    }

    /// What is named, and is otherwise in this configuration.
    pub(super) fn differences(&self, kind: StoreKind, config: &Value) -> Vec<Difference> {
        let named = self.named(kind).into_iter();
        named
            .filter_map(|named| {
                let found = &config[named.field];
                let covered = covers(found, &named.value);
                let (wanted, found) = ((named.text)(&named.value), (named.text)(found));
                (wanted != found && !covered).then_some(Difference {
                    setting: named.setting,
                    wanted,
                    found,
                })
            })
            .collect()
    }
}

impl BucketSpec {
    /// One set of settings from two places that use the same bucket: what either names. `provision` is the one that does most:
    /// `"none"` gives way to the default, and the default to `"warn"` and that to `"update"`.
    ///
    /// # Errors
    /// When both name a setting, differently.
    pub(crate) fn merge(&self, other: &BucketSpec) -> Result<BucketSpec, BucketConflict> {
        // Which engine does not matter here: KV has all settings there are.
        let (first, second) = (self.named(StoreKind::Kv), other.named(StoreKind::Kv));
        for one in &first {
            let two = second.iter().find(|two| two.field == one.field);
            if let Some(two) = two.filter(|two| two.value != one.value) {
                return Err(BucketConflict {
                    bucket: self.name.to_owned(),
                    setting: one.setting,
                    first: (one.text)(&one.value),
                    second: (two.text)(&two.value),
                });
            }
        }
        let rank = |provision| match provision {
            Provision::None => 0,
            Provision::Create => 1,
            Provision::Warn => 2,
            Provision::Update => 3,
        };
        Ok(BucketSpec {
            name: self.name,
            history: self.history.or(other.history),
            ttl: self.ttl.or(other.ttl),
            key_ttl: self.key_ttl.or(other.key_ttl),
            limit_markers: self.limit_markers.or(other.limit_markers),
            description: self.description.or(other.description),
            replicas: self.replicas.or(other.replicas),
            storage: self.storage.or(other.storage),
            max_bytes: self.max_bytes.or(other.max_bytes),
            max_value_size: self.max_value_size.or(other.max_value_size),
            compression: self.compression.or(other.compression),
            atomic: self.atomic.or(other.atomic),
            fast_ingest: self.fast_ingest.or(other.fast_ingest),
            provision: if rank(self.provision) >= rank(other.provision) {
                self.provision
            } else {
                other.provision
            },
        })
    }
}

/// Writes a value over another. Of an object only what is named in it.
fn merge(config: &mut Value, value: Value) {
    match (config.as_object_mut(), value) {
        (Some(config), Value::Object(named)) => {
            for (name, value) in named {
                merge(config.entry(name).or_insert(Value::Null), value);
            }
        }
        (_, value) => *config = value,
    }
}

/// Whether all that is wanted is there, and perhaps more.
fn covers(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| covers(found.get(name).unwrap_or(&Value::Null), value)),
        (Value::Array(found), Value::Array(wanted)) => {
            let mut pairs = found.iter().zip(wanted);
            found.len() == wanted.len() && pairs.all(|(found, wanted)| covers(found, wanted))
        }
        // What is not said is empty, and the other way round.
        (Value::Null, Value::String(wanted)) => wanted.is_empty(),
        (Value::Null, Value::Bool(wanted)) => !wanted,
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        _ => found == wanted,
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn number(value: &Value) -> String {
    match value.as_i64() {
        None | Some(..=0) => "without bound".to_owned(),
        Some(number) => number.to_string(),
    }
}

/// As `ttl = ".."` is written: the largest unit that it is a whole number of.
pub(super) fn duration(value: &Value) -> String {
    let nanos = value.as_u64().unwrap_or(0);
    if nanos == 0 {
        return "without end".to_owned();
    }
    for (unit, length) in [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
    ] {
        if nanos.is_multiple_of(length) {
            return format!("\"{}{unit}\"", nanos / length);
        }
    }
    format!("\"{nanos}ns\"")
}

pub(super) fn quoted(value: &Value) -> String {
    format!("{:?}", value.as_str().unwrap_or(""))
}

pub(super) fn boolean(value: &Value) -> String {
    value.as_bool().unwrap_or(false).to_string()
}

/// As it is on the server.
pub(super) fn whole(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        value => value.to_string(),
    }
}

pub(super) fn compressed(value: &Value) -> String {
    match value.as_str() {
        None | Some("" | "none") => "false".to_owned(),
        Some("s2") => "true".to_owned(),
        Some(other) => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> BucketSpec {
        BucketSpec {
            name: "b",
            ..BucketSpec::default()
        }
    }

    #[test]
    fn a_new_bucket_is_what_the_records_say_and_what_is_named() {
        let spec = BucketSpec {
            history: Some(5),
            ttl: Some(Duration::from_secs(60)),
            storage: Some(Storage::Memory),
            ..spec()
        };
        let spec: &dyn Settings = &spec;
        let kv = spec.new_stream(StoreKind::Kv);
        assert_eq!(kv["name"], "KV_b");
        assert_eq!(kv["subjects"], json!(["$KV.b.>"]));
        assert_eq!(kv["max_msgs_per_subject"], 5);
        assert_eq!(kv["max_age"], 60_000_000_000_u64);
        assert_eq!(kv["duplicate_window"], 60_000_000_000_u64);
        assert_eq!(kv["storage"], "memory");
        assert_eq!(kv["deny_delete"], true);
        let object = spec.new_stream(StoreKind::Object);
        assert_eq!(object["subjects"], json!(["$O.b.C.>", "$O.b.M.>"]));
        assert!(object.get("max_msgs_per_subject").is_none());
        assert!(object.get("deny_delete").is_none());
    }

    #[test]
    fn only_what_is_named_is_compared_and_both_values_are_said() {
        let server =
            json!({"max_msgs_per_subject": 1, "max_age": 0, "num_replicas": 3, "storage": "file"});
        let none: &dyn Settings = &spec();
        assert_eq!(none.differences(StoreKind::Kv, &server), []);
        let wanted = BucketSpec {
            history: Some(5),
            ttl: Some(Duration::from_secs(5400)),
            compression: Some(false),
            ..spec()
        };
        let wanted: &dyn Settings = &wanted;
        let texts: Vec<_> = wanted.differences(StoreKind::Kv, &server);
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
        let spec = BucketSpec {
            ttl: Some(Duration::from_secs(10)),
            ..spec()
        };
        let spec: &dyn Settings = &spec;
        spec.apply(StoreKind::Kv, &mut config);
        let expected = json!({"max_age": 10_000_000_000_u64, "duplicate_window": 10_000_000_000_u64, "allow_atomic": true, "max_bytes": 7});
        assert_eq!(config, expected);
    }

    #[test]
    fn two_places_are_one_spec_unless_they_contradict_each_other() {
        let a = BucketSpec {
            history: Some(5),
            provision: Provision::None,
            ..spec()
        };
        let b = BucketSpec {
            ttl: Some(Duration::from_secs(60)),
            ..spec()
        };
        let both = a.merge(&b).unwrap();
        assert_eq!((both.history, both.ttl), (Some(5), b.ttl));
        assert_eq!(both.provision, Provision::Create);
        let c = BucketSpec {
            history: Some(1),
            ..spec()
        };
        let conflict = a.merge(&c).unwrap_err();
        assert_eq!(
            (conflict.setting, &*conflict.first, &*conflict.second),
            ("history", "5", "1")
        );
    }
}
