//! Times to live of single keys (ADR-48): for an entry that is created, and for the mark that a purge leaves.
//!
//! A server without them would drop the header without a word, and keep the entry for ever; so the bucket is asked once
//! whether it takes them, and the server for its API level where it does not.

use super::super::error::{StoreError, TtlRule};
use super::key::purge_marker;
use super::{KvKey, entry_headers};
use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_TTL;
use bytes::Bytes;
use serde::Serialize;
use std::time::Duration;

/// Writes of one key that end by themselves: made by [`KvKey::with_ttl`].
#[derive(Debug)]
#[must_use = "nothing is written yet"]
pub struct WithTtl<'k, T> {
    key: &'k KvKey<T>,
    ttl: Duration,
}

impl<T> KvKey<T> {
    /// The next write is to last so long: whole seconds, at least one.
    ///
    /// The bucket must allow it (`key_ttl = true` or `limit_markers = ".."`), and the server be 2.11 or later. An entry that
    /// ends is gone with all its revisions. A watch hears of it only where the bucket has limit markers. A later
    /// [`put`](KvKey::put) or [`update`](KvKey::update) of the key has no time to live and makes it permanent. In a bucket with limit
    /// markers and a history of more than one revision, the server raises a time that is shorter than that of the markers to theirs.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # let config = nats_service::async_nats::jetstream::kv::Config { bucket: "leases".into(), limit_markers: Some(std::time::Duration::from_secs(60)), ..Default::default() };
    /// # js.create_key_value(config).await?;
    /// use std::time::Duration;
    /// use nats_service::{KvStore, StoreError, TtlRule};
    ///
    /// let lease = KvStore::<String>::bind(js, "leases")?.key("printer")?;
    /// lease.with_ttl(Duration::from_secs(30)).create(&"me".into()).await?;
    ///
    /// match lease.with_ttl(Duration::from_millis(1500)).create(&"me".into()).await {
    ///     Err(StoreError::Ttl { rule, .. }) => assert_eq!(rule, TtlRule::NotWholeSeconds { seconds: 1 }),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn with_ttl(&self, ttl: Duration) -> WithTtl<'_, T> {
        WithTtl { key: self, ttl }
    }
}

impl<T> WithTtl<'_, T> {
    /// Deletes the key and its history, as [`KvKey::purge`], with a mark that ends.
    ///
    /// # Errors
    /// [`StoreError::Ttl`], and those of [`KvKey::purge`].
    pub async fn purge(&self) -> Result<u64, StoreError> {
        let headers = self.headers(purge_marker()).await?;
        self.key.write(headers, Bytes::new(), None).await
    }

    fn refuse(&self, rule: TtlRule) -> StoreError {
        StoreError::Ttl {
            key: self.key.key.clone(),
            rule,
        }
    }

    /// Adds the header, if it may be there.
    async fn headers(&self, mut headers: HeaderMap) -> Result<HeaderMap, StoreError> {
        let text = text(self.ttl).map_err(|rule| self.refuse(rule))?;
        let store = &self.key.store;
        if !store.layout.knows_ttl() {
            if !store.stream.info().await?.config.allow_msg_ttl {
                let level = store.stream.api_level().await?;
                return Err(self.refuse(match level {
                    0 => TtlRule::OldServer { level },
                    _ => TtlRule::Disabled,
                }));
            }
            // The setting cannot be taken back.
            store.layout.note_ttl();
        }
        headers.insert(NATS_MESSAGE_TTL, text);
        Ok(headers)
    }
}

impl<T: Serialize> WithTtl<'_, T> {
    /// Writes the value if the key has none, as [`KvKey::create`].
    ///
    /// # Errors
    /// [`StoreError::Ttl`], and those of [`KvKey::create`].
    pub async fn create(&self, value: &T) -> Result<u64, StoreError> {
        let codec = self.key.store.codec;
        let bytes = codec.encode(value)?;
        let headers = self.headers(entry_headers(codec)).await?;
        self.key.create_bytes(headers, bytes).await
    }

    /// Refuses: a put takes no time to live.
    ///
    /// # Errors
    /// [`StoreError::Ttl`] always, with what to do instead.
    pub async fn put(&self, _value: &T) -> Result<u64, StoreError> {
        Err(self.refuse(TtlRule::OnPut))
    }

    /// Refuses: an update takes no time to live.
    ///
    /// # Errors
    /// [`StoreError::Ttl`] always, with what to do instead.
    pub async fn update(&self, _value: &T, _revision: u64) -> Result<u64, StoreError> {
        Err(self.refuse(TtlRule::OnPut))
    }
}

fn text(ttl: Duration) -> Result<String, TtlRule> {
    let seconds = ttl.as_secs();
    match (seconds, ttl.subsec_nanos()) {
        (0, _) => Err(TtlRule::TooShort),
        (seconds, 0) => Ok(format!("{seconds}s")),
        (seconds, _) => Err(TtlRule::NotWholeSeconds { seconds }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_to_live_is_cut() {
        assert_eq!(text(Duration::from_secs(90)).as_deref(), Ok("90s"));
        assert_eq!(text(Duration::ZERO), Err(TtlRule::TooShort));
        assert_eq!(text(Duration::from_millis(999)), Err(TtlRule::TooShort));
        let halves = text(Duration::from_millis(2500));
        assert_eq!(halves, Err(TtlRule::NotWholeSeconds { seconds: 2 }));
    }
}
