//! `crate = path`, for a crate that is renamed or re-exported. That nothing else is named is a test of the macro crate.
#![deny(warnings)]

mod framework {
    pub use nats_service as service;
}

use framework::service::{ServiceError, message, nats_service};

#[message(crate = crate::framework::service)]
pub struct Request {
    pub id: String,
}

#[derive(Debug, ServiceError)]
#[service_error(code = Internal, crate = crate::framework::service)]
pub enum Problem {
    #[service_error(message = "broken")]
    Broken,
}

#[nats_service(crate = crate::framework::service)]
pub trait Renamed {
    #[kv_store(bucket = "b", key = "<a>")]
    async fn several(&self, a: String, b: u8) -> Result<Request, Problem>;
}

fn main() {
    let _ = (Request { id: String::new() }, Problem::Broken);
}
