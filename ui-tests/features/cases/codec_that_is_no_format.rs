//! The type is there, and is no encoding.
use nats_service::nats_service;

pub struct NotAFormat;

#[nats_service(codec = NotAFormat)]
pub trait Profiles {
    async fn save(&self, id: u64) -> u64;
}

fn main() {}
