//! A cache with everything, beside stores of other buckets, and one that shares its bucket with a store of another method.
#![deny(missing_docs)]
#![deny(warnings)]

use nats_service::{Error, SingleFlight, nats_service};
use std::time::Duration;

/// Profiles.
#[nats_service]
pub trait Profiles {
    /// With everything.
    #[kv_cache(
        bucket = "users",
        key = "user.<id>",
        ttl = "10m",
        single_flight = "cluster",
        stale_on_error = "1h",
        cache_none = "10s",
        cache_errors(NotFound = "10s", PermissionDenied = "1s"),
        lookup_timeout = "100ms",
        write = "before_reply",
        storage = "memory",
        max_bytes = "64MiB",
        name = "users",
        when = |id, user| user.as_ref().is_none_or(|user| user != id)
    )]
    #[kv_store(bucket = "log", key = "found.<id>", history = 10)]
    #[kv_evict(bucket = "wanted", key = "<id>")]
    async fn find(&self, id: &str) -> Result<Option<String>, Error>;

    /// Writes what the cache reads.
    #[kv_store(bucket = "users", key = "user.<id>", history = 5)]
    async fn save(&self, id: String, name: String) -> Option<String>;

    /// The bucket keeps entries for as long as its longest cache needs.
    #[nats_service::kv_cache(bucket = "users", key = "short.<id>", ttl = "1m", shared_key = true)]
    async fn short(&self, id: u64) -> u8;
}

fn main() {
    let stores: Vec<_> = ProfilesContract::SPEC.methods.iter().flat_map(|method| method.stores).collect();
    let users: Vec<_> = stores.iter().filter(|store| store.bucket.name == "users").collect();
    for store in &users {
        assert_eq!(store.bucket.ttl, Some(Duration::from_secs(4200)));
        assert_eq!(store.bucket.history, Some(5));
    }
    let cache = users[0].cache.unwrap();
    assert_eq!((cache.fresh, cache.stale), (Duration::from_secs(600), Some(Duration::from_secs(3600))));
    assert_eq!((cache.errors.len(), cache.flight), (2, SingleFlight::Cluster));
    assert!(users[1].cache.is_none());
}
