//! `cfg` removes everything of a method; `deprecated`, documentation and lints stay where they mean the same.
#![deny(warnings)]
#![allow(clippy::all)]

use nats_service::nats_service;

#[deprecated]
#[nats_service::message]
pub struct Old {
    id: u64,
}

#[nats_service]
pub trait Things {
    /// Only elsewhere: its types do not even exist here.
    #[cfg(any())]
    #[kv_store(bucket = "nowhere", key = "<request.id>")]
    async fn elsewhere(&self, request: NoSuchType, other: NoSuchType) -> NoSuchAnswer;

    /// Old.
    #[deprecated(note = "use `new_one`")]
    #[kv_store(bucket = "things", key = "<id>")]
    async fn old(&self, id: u64) -> u64;

    /// With a lint of its own.
    #[allow(clippy::too_many_arguments)]
    #[must_use]
    async fn many(&self, a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) -> u8;

    /// With an old type, which generated code names again.
    #[allow(deprecated)]
    #[kv_store(bucket = "old", key = "<request.id>")]
    async fn old_type(&self, request: Old) -> Old;

    /// One of two.
    #[cfg(not(any()))]
    async fn either(&self) -> u8;

    /// The other.
    #[cfg(any())]
    async fn either(&self) -> u16;
}

#[allow(deprecated)]
pub async fn call(client: &ThingsClient) {
    let _ = client.old(7);
    let _ = client.stores().map(|stores| stores.old());
    let _ = client.many(1, 2, 3, 4, 5, 6, 7, 8);
    let _: Result<u8, _> = client.either().await;
}

fn main() {
    assert_eq!(ThingsContract::SPEC.methods.len(), 4);
}
