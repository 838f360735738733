//! What the server at hand is too old for is said, by the level of its JetStream API, and nothing is done by halves.

use nats_service::{
    BucketSettings, KvStore, ProvisionError, ReadLevel, StoreError, TransactionError,
};
use nats_service_tests::{Nats, too_old};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn keys_that_end_confirmed_reads_and_snapshots_work_or_say_what_they_need() {
    let nats = Nats::start().await;
    let (old, js) = (too_old(1).await, nats.js.clone());
    nats.kv_bucket("plain").await;
    let store = KvStore::<u32>::bind(js.clone(), "plain").unwrap();
    let key = store.key("a").unwrap();
    key.put(&1).await.unwrap();

    let confirmed = key.read(ReadLevel::Confirmed).await;
    let snapshot = store.get_many(["a"]).snapshot().await;
    // Many keys come from any server, if by one request each.
    let many = store.get_many(["a"]).await.unwrap();
    assert_eq!(many.len(), 1);
    match old {
        true => {
            assert!(matches!(confirmed, Err(StoreError::Unsupported { .. })));
            assert!(matches!(snapshot, Err(StoreError::Unsupported { .. })));
        }
        false => assert!(confirmed.is_ok() && snapshot.is_ok()),
    }

    let settings = BucketSettings::new("ends").limit_markers(MINUTE);
    let made = KvStore::<u32>::create(js, settings).await;
    match made {
        Ok(_) => assert!(!old),
        Err(ProvisionError::OldApi { needed, .. }) => assert!(old && needed == 1),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn transactions_work_or_say_what_they_need() {
    let nats = Nats::start().await;
    let (old, js) = (too_old(2).await, nats.js.clone());
    nats.kv_bucket("plain").await;
    let store = KvStore::<u32>::bind(js.clone(), "plain").unwrap();
    let key = store.key("a").unwrap();
    let committed = store.transaction().put(&key, &1).commit().await;
    match committed {
        Err(TransactionError::ServerTooOld { .. }) => assert!(old),
        // This bucket was made without the setting, which is another matter.
        other => assert!(!old, "{other:?}"),
    }
    assert!(key.get().await.unwrap().is_none());

    let settings = BucketSettings::new("together").atomic(true);
    match KvStore::<u32>::create(js, settings).await {
        Ok(store) => {
            let key = store.key("a").unwrap();
            store.transaction().put(&key, &1).commit().await.unwrap();
            assert!(!old);
        }
        Err(ProvisionError::OldApi { needed, .. }) => assert!(old && needed == 2),
        Err(other) => panic!("{other}"),
    }
}
