//! Where the keys of a bucket are: under which subjects its stream holds them, and where a write is published to.
//!
//! The two differ for a mirror, which holds its origin's subjects and is written to through the origin, and in another
//! JetStream domain, where writes go under the prefix of its API (ADR-8, ADR-19).

use super::super::stream::{Mirror, api_prefix};
use async_nats::jetstream::Context;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Everything up to the key.
#[derive(Debug)]
pub(crate) struct Layout {
    /// `$KV.<bucket>.`, or the origin's.
    stored: String,
    /// Where the origin is reached, for a mirror from elsewhere: `$JS.hub.API`.
    external: Option<String>,
    /// The same with what stands before it in a write; found out with the first one.
    written: OnceLock<String>,
    /// The bucket allows times to live of keys.
    ttl: AtomicBool,
}

impl Layout {
    /// A bucket whose stream takes its own subjects.
    pub(crate) fn plain(bucket: &str) -> Self {
        Self {
            stored: format!("$KV.{bucket}."),
            external: None,
            written: OnceLock::new(),
            ttl: AtomicBool::new(false),
        }
    }

    /// The bucket with this mirror in its configuration, if it is one.
    pub(crate) fn of(bucket: &str, mirror: Option<&Mirror>) -> Self {
        let Some(mirror) = mirror else {
            return Self::plain(bucket);
        };
        Self {
            external: mirror.api().map(ToOwned::to_owned),
            ..Self::plain(mirror.bucket())
        }
    }

    /// The same, of a stream's configuration as the server sent it.
    pub(crate) fn of_config(bucket: &str, config: &serde_json::Value) -> Self {
        let mirror = &config["mirror"];
        let mirror = serde_json::from_value(mirror.clone()).ok().flatten();
        Self::of(bucket, mirror.as_ref())
    }

    /// What stands before the key in a write, but for the prefix of our own API.
    pub(crate) fn put_prefix(&self) -> String {
        match &self.external {
            Some(external) => format!("{external}.{}", self.stored),
            None => self.stored.clone(),
        }
    }

    /// Whether a write goes under the prefix of our own API.
    pub(crate) fn through_api(&self, js: &Context) -> bool {
        self.external.is_none() && api_prefix(js).is_some()
    }

    /// What stands before the key in the stream's subjects.
    pub(crate) fn stored(&self) -> &str {
        &self.stored
    }

    /// Whether the bucket is known to allow times to live of keys.
    pub(crate) fn knows_ttl(&self) -> bool {
        self.ttl.load(Ordering::Relaxed)
    }

    pub(crate) fn note_ttl(&self) {
        self.ttl.store(true, Ordering::Relaxed);
    }

    /// The whole subject of a write.
    pub(crate) fn write(&self, js: &Context, key: &str) -> String {
        let before = self.written.get_or_init(|| match api_prefix(js) {
            Some(prefix) if self.external.is_none() => format!("{prefix}.{}", self.stored),
            _ => self.put_prefix(),
        });
        format!("{before}{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_read_under_its_origins_subjects_and_written_through_its_origin() {
        let of = |mirror| Layout::of_config("b", &serde_json::json!({ "mirror": mirror }));
        let near = of(serde_json::json!({ "name": "KV_a" }));
        assert_eq!((near.stored(), &near.external), ("$KV.a.", &None));
        let far = of(serde_json::json!({
            "name": "KV_a", "external": { "api": "$JS.hub.API", "deliver": "" }
        }));
        assert_eq!(far.external.as_deref(), Some("$JS.hub.API"));
        assert_eq!(of(serde_json::Value::Null).stored(), "$KV.b.");
    }
}
