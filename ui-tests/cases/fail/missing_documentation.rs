//! The lint points at what has no documentation, and generated items have theirs.
#![deny(missing_docs)]

use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<id>")]
    async fn save(&self, id: String) -> String;

    #[endpoint(timeout = "1s")]
    async fn with_body(&self) -> u8 {
        1
    }
}

fn main() {}
