//! Generated code names everything by an absolute path.
#![no_implicit_prelude]
#![deny(missing_docs, warnings)]
#![forbid(unsafe_code)]

/// A request.
#[::nats_service::message]
pub struct Request {
    /// Its number.
    pub id: u64,
}

/// What goes wrong.
#[::core::prelude::v1::derive(::core::fmt::Debug, ::nats_service::ServiceError)]
pub enum Problem {
    /// Not there.
    #[service_error(code = NotFound, message = "no {id}")]
    Missing {
        /// Which.
        id: u64,
    },
    /// Both.
    #[service_error(code = Aborted, message = "{0} and {1:?}")]
    Pair(u8, ::std::string::String),
    /// Nothing.
    #[service_error(code = Internal, message = "broken")]
    Broken,
}

/// A service.
#[::nats_service::nats_service]
pub trait Things {
    /// Gets one.
    #[kv_store(bucket = "things", key = "thing.<id>", history = 3, ttl = "1h", storage = "memory", compression = true)]
    async fn get(&self, request: Request) -> ::core::result::Result<Request, Problem>;

    /// Several arguments.
    #[object_store(bucket = "objects", key = "<a>.<b>.<response>")]
    #[kv_evict(bucket = "things", key = "thing.<a>")]
    async fn several(&self, a: u64, b: &str) -> u64;

    /// Nothing.
    async fn nothing(&self);

    /// An endpoint with a body.
    #[endpoint(timeout = "1s")]
    async fn with_body(&self, id: u64) -> u64 {
        id
    }
}

fn main() {}
