//! Whether a method can fail is decided by its type and not by the name of it.
#![deny(warnings)]

use nats_service::{Call, Error, message, nats_service};

type ApiResult<T> = Result<T, Error>;
type Shorter<T, E = Error> = std::result::Result<T, E>;

mod io {
    pub type Result<T> = std::result::Result<T, nats_service::Error>;
}

#[message]
pub struct MyResult {
    ok: bool,
}

#[nats_service]
pub trait Results {
    async fn alias(&self) -> ApiResult<u8>;
    async fn path(&self) -> io::Result<u8>;
    async fn default_parameter(&self) -> Shorter<u8>;
    async fn whole(&self) -> std::result::Result<u8, Error>;
    async fn unit(&self) -> Result<(), Error>;
    async fn no_result(&self) -> MyResult;
    async fn option(&self) -> Option<u8>;
    async fn nothing(&self);
}

pub fn types(client: &ResultsClient) {
    let _: Call<u8, Error> = client.alias();
    let _: Call<u8, Error> = client.path();
    let _: Call<u8, Error> = client.default_parameter();
    let _: Call<u8, Error> = client.whole();
    let _: Call<(), Error> = client.unit();
    let _: Call<MyResult, std::convert::Infallible> = client.no_result();
    let _: Call<Option<u8>, std::convert::Infallible> = client.option();
    let _: Call<(), std::convert::Infallible> = client.nothing();
}

fn main() {
    let _ = MyResult { ok: true }.ok;
}
