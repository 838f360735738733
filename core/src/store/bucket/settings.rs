//! The settings of a bucket as those of its stream, and how two sets of them compare.
//!
//! Streams are handled as JSON, as the server sent it: a setting that this crate does not know survives an update.

use super::{BucketSettings, Provision};
use crate::store::stream::{nanos, prefix};
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

/// A setting of buckets, and how their streams have it.
#[derive(Debug)]
pub(super) struct Setting {
    /// The attribute's option, and the method of [`BucketSettings`].
    pub(super) name: &'static str,
    /// The field of the stream's configuration.
    pub(super) field: &'static str,
    /// A value as it is written in an attribute.
    text: fn(&Value) -> String,
    /// The API level of a server that has it: one below drops it without a word.
    level: u64,
}

impl Setting {
    const fn new(name: &'static str, field: &'static str, text: fn(&Value) -> String) -> Self {
        Self {
            name,
            field,
            text,
            level: 0,
        }
    }

    const fn since(self, level: u64) -> Self {
        Self { level, ..self }
    }
}

pub(super) static HISTORY: Setting = Setting::new("history", "max_msgs_per_subject", number);
pub(super) static TTL: Setting = Setting::new("ttl", "max_age", duration);
pub(super) static KEY_TTL: Setting = Setting::new("key_ttl", "allow_msg_ttl", boolean).since(1);
pub(super) static LIMIT_MARKERS: Setting =
    Setting::new("limit_markers", "subject_delete_marker_ttl", duration).since(1);
pub(super) static DESCRIPTION: Setting = Setting::new("description", "description", quoted);
pub(super) static REPLICAS: Setting = Setting::new("replicas", "num_replicas", number);
pub(super) static STORAGE: Setting = Setting::new("storage", "storage", quoted);
pub(super) static MAX_BYTES: Setting = Setting::new("max_bytes", "max_bytes", number);
pub(super) static MAX_VALUE_SIZE: Setting = Setting::new("max_value_size", "max_msg_size", number);
pub(super) static COMPRESSION: Setting = Setting::new("compression", "compression", compressed);
pub(super) static ATOMIC: Setting = Setting::new("atomic", "allow_atomic", boolean).since(2);
/// ADR-50.
pub(super) static FAST_INGEST: Setting =
    Setting::new("fast_ingest", "allow_batched", boolean).since(4);
pub(super) static PLACEMENT: Setting = Setting::new("placement", "placement", whole);
pub(super) static REPUBLISH: Setting = Setting::new("republish", "republish", whole);
pub(super) static MIRROR: Setting = Setting::new("mirror", "mirror", whole);
pub(super) static MIRROR_DIRECT: Setting = Setting::new("mirror_direct", "mirror_direct", boolean);
pub(super) static SOURCES: Setting = Setting::new("source", "sources", whole);
pub(super) static METADATA: Setting = Setting::new("metadata", "metadata", whole);
pub(super) static DIRECT_GET: Setting = Setting::new("direct_get", "allow_direct", boolean);

impl BucketSettings {
    /// The stream behind the bucket.
    pub(crate) fn stream_name(&self, kind: StoreKind) -> String {
        format!("{}{}", prefix(kind), self.name)
    }

    /// The setting that needs the highest API level, and that level.
    pub(super) fn needs_level(&self) -> Option<(&'static str, u64)> {
        let on = self.named.iter().filter(|(_, value)| *value != false);
        let needed = on.map(|(setting, _)| (setting.name, setting.level));
        needed
            .max_by_key(|(_, level)| *level)
            .filter(|(_, level)| *level > 0)
    }

    /// The configuration of a stream that is to be made: ADR-8's and ADR-20's, with what is named.
    pub(super) fn new_stream(&self, kind: StoreKind) -> Value {
        let name = &self.name;
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
        self.apply(&mut config);
        if config["mirror"].is_object() {
            // A mirror takes its origin's subjects, and none of its own.
            config["subjects"] = json!([]);
        }
        config
    }

    /// Writes what is named into a stream's configuration, and leaves everything else as it is.
    pub(super) fn apply(&self, config: &mut Value) {
        for (setting, value) in &self.named {
            let field = setting.field;
            // The server refuses a window that is longer than entries live.
            if field == TTL.field {
                let (ttl, window) = (value.as_u64(), &config["duplicate_window"]);
                if ttl > Some(0) && window.as_u64() > ttl {
                    config["duplicate_window"] = value.clone();
                }
            }
            // And marks where keys may not end.
            if field == LIMIT_MARKERS.field {
                config[KEY_TTL.field] = json!(true);
            }
            write_over(&mut config[field], value.clone());
        }
    }

    /// What is named, and is otherwise in this configuration.
    pub(super) fn differences(&self, config: &Value) -> Vec<Difference> {
        let named = self.named.iter();
        named
            .filter_map(|(setting, wanted)| {
                let found = &config[setting.field];
                let covered = covers(found, wanted);
                let (wanted, found) = ((setting.text)(wanted), (setting.text)(found));
                (wanted != found && !covered).then_some(Difference {
                    setting: setting.name,
                    wanted,
                    found,
                })
            })
            .collect()
    }

    /// Adds what another place names that uses the same bucket. `provision` becomes the one that does most: `"none"` gives way
    /// to the default, and the default to `"warn"` and that to `"update"`.
    ///
    /// # Errors
    /// When both name a setting, differently.
    pub(crate) fn merge(&mut self, other: Self) -> Result<(), BucketConflict> {
        for (setting, value) in other.named {
            match self.get(setting) {
                None => self.named.push((setting, value)),
                Some(here) if *here == value => {}
                Some(here) => {
                    return Err(BucketConflict {
                        bucket: self.name.clone(),
                        setting: setting.name,
                        first: (setting.text)(here),
                        second: (setting.text)(&value),
                    });
                }
            }
        }
        let rank = |provision| match provision {
            Provision::None => 0,
            Provision::Create => 1,
            Provision::Warn => 2,
            Provision::Update => 3,
        };
        if rank(other.provision) > rank(self.provision) {
            self.provision = other.provision;
        }
        Ok(())
    }
}

/// Writes a value over another. Of an object only what is named in it.
fn write_over(config: &mut Value, value: Value) {
    match (config.as_object_mut(), value) {
        (Some(config), Value::Object(named)) => {
            for (name, value) in named {
                write_over(config.entry(name).or_insert(Value::Null), value);
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

fn number(value: &Value) -> String {
    match value.as_i64() {
        None | Some(..=0) => "without bound".to_owned(),
        Some(number) => number.to_string(),
    }
}

/// As `ttl = ".."` is written: the largest unit that it is a whole number of.
fn duration(value: &Value) -> String {
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

fn quoted(value: &Value) -> String {
    format!("{:?}", value.as_str().unwrap_or(""))
}

fn boolean(value: &Value) -> String {
    value.as_bool().unwrap_or(false).to_string()
}

/// As it is on the server.
fn whole(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        value => value.to_string(),
    }
}

fn compressed(value: &Value) -> String {
    match value.as_str() {
        None | Some("" | "none") => "false".to_owned(),
        Some("s2") => "true".to_owned(),
        Some(other) => other.to_owned(),
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
