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

    /// What stands before the key in the stream's subjects.
    pub(crate) fn stored(&self) -> &str {
        &self.stored
    }

    /// What stands before that in a write, its dot left out: none where the subject is published as it is.
    pub(crate) fn prefix(&self, js: &Context) -> Option<String> {
        self.external.clone().or_else(|| api_prefix(js))
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
        let before = self.written.get_or_init(|| match self.prefix(js) {
            Some(prefix) => format!("{prefix}.{}", self.stored),
            None => self.stored.clone(),
        });
        format!("{before}{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(json: serde_json::Value) -> Mirror {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_mirror_is_read_under_its_origins_subjects_and_written_through_its_origin() {
        let near = mirror(serde_json::json!({ "name": "KV_a" }));
        let layout = Layout::of("b", Some(&near));
        assert_eq!((layout.stored(), &layout.external), ("$KV.a.", &None));
        let far = mirror(serde_json::json!({
            "name": "KV_a", "external": { "api": "$JS.hub.API", "deliver": "" }
        }));
        let layout = Layout::of("b", Some(&far));
        assert_eq!(layout.external.as_deref(), Some("$JS.hub.API"));
        assert_eq!(Layout::of("b", None).stored(), "$KV.b.");
    }
}
