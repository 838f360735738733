//! An encoding of one's own is behind a feature.
use nats_service::nats_service;

pub struct Cbor;

#[nats_service(codec = Cbor)]
pub trait Profiles {
    async fn save(&self, id: u64) -> u64;
}

fn main() {}
