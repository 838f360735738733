//! What the blocks of `docs/guide/` share: the contract of its first section, and a service of it that runs.

use async_nats::jetstream::Context;
use nats_service::{Server, ServiceError, message, nats_service};
use nats_service_testkit::TestServer;
use std::time::Duration;

/// User profiles.
#[nats_service(version = "1.0.0")]
pub trait Profiles {
    /// Saves a profile of a tenant.
    #[kv_store(bucket = "profiles", key = "user.<tenant>.<profile.id>", history = 5)]
    async fn save(&self, tenant: String, profile: Profile) -> Result<Profile, ProfileError>;

    /// Makes a profile, and its id.
    #[kv_store(
        bucket = "profiles",
        key = "made.<response.id>",
        write = "before_reply"
    )]
    async fn register(&self, name: String) -> Result<Profile, ProfileError>;

    /// Renders a report.
    #[object_store(bucket = "reports", key = "report.<id>")]
    async fn report(&self, id: String, lines: u32) -> Report;

    /// How many profiles there are.
    async fn count(&self) -> u64;
}

/// A profile.
#[message]
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// One token.
    pub id: String,
    /// Any text.
    pub name: String,
}

/// A report.
#[message]
#[derive(Debug)]
pub struct Report {
    /// Line by line.
    pub lines: Vec<String>,
}

/// Why a profile is not saved.
#[derive(Debug, PartialEq, ServiceError)]
pub enum ProfileError {
    /// Somebody has it.
    #[service_error(code = AlreadyExists, message = "{name} is taken, {free} is free")]
    NameTaken {
        /// The name.
        name: String,
        /// Another one.
        free: String,
    },
}

/// The service of the guide.
#[derive(Debug)]
pub struct Memory;

impl Profiles for Memory {
    async fn save(&self, _tenant: String, profile: Profile) -> Result<Profile, ProfileError> {
        if profile.name == "admin" {
            let (name, free) = (profile.name, "admin2".to_owned());
            return Err(ProfileError::NameTaken { name, free });
        }
        Ok(profile)
    }

    async fn register(&self, name: String) -> Result<Profile, ProfileError> {
        let id = "p7".to_owned();
        Ok(Profile { id, name })
    }

    async fn report(&self, id: String, lines: u32) -> Report {
        let lines = (0..lines).map(|line| format!("{id}: {line}")).collect();
        Report { lines }
    }

    async fn count(&self) -> u64 {
        1
    }
}

/// A KV bucket, as somebody else made it.
///
/// # Errors
/// When the server refuses.
pub async fn kv_bucket(js: &Context, bucket: &str) -> Result<(), Box<dyn std::error::Error>> {
    let bucket = bucket.to_owned();
    let config = async_nats::jetstream::kv::Config {
        bucket,
        ..Default::default()
    };
    js.create_key_value(config).await?;
    Ok(())
}

/// Serves the contract on a private server, and runs a block with JetStream and a client of it.
///
/// # Panics
/// When anything of it fails.
pub fn run<F>(block: F)
where
    F: AsyncFnOnce(Context, ProfilesClient) -> Result<(), Box<dyn std::error::Error>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let story = async {
        let server = TestServer::start().await?;
        let nats = async_nats::connect(server.url()).await?;
        let js = async_nats::jetstream::new(nats.clone());
        let running = Server::new(nats.clone()).with_jetstream(js.clone());
        let running = running.serve(ProfilesServer::new(Memory)).start().await?;
        let client = ProfilesClient::new(nats).with_jetstream(js.clone());
        block(js, client).await?;
        running.shutdown(Duration::from_secs(10)).await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let runtime = runtime.expect("a runtime");
    runtime.block_on(story).expect("the block runs");
}
