//! One trait with a method of every kind.
#![deny(missing_docs)]
#![deny(warnings)]
#![forbid(unsafe_code)]

use nats_service::{Any, nats_service};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A request.
#[derive(Serialize, Deserialize)]
pub struct SaveProfile<'a> {
    id: &'a str,
    address: Address,
    r#type: u8,
}

/// A part of it.
#[derive(Serialize, Deserialize)]
pub struct Address {
    city: String,
}

/// An answer.
#[derive(Serialize, Deserialize)]
pub struct Profile {
    id: u64,
}

type ApiResult<T> = Result<T, nats_service::Error>;

/// User profiles.
#[nats_service(version = "1.0.0", metadata(owner = "team-a", "x-y" = "z"))]
pub trait Profiles: Send + Sync + 'static {
    /// Saves a profile.
    #[kv_store(bucket = "user_profiles", key = "user.<id>.<address.city>.<type>", history = 5, ttl = "1h")]
    async fn save_profile(&self, request: SaveProfile<'_>) -> Result<Profile, nats_service::Error>;

    /// Makes one.
    #[nats_service::kv_store(bucket = "user_profiles", key = "made.<response.id>.<name:escaped>")]
    #[kv_evict(bucket = "user_profiles", key = "old.<name:escaped>.<count>")]
    async fn make(&self, name: Cow<'_, str>, count: u32, text: &str) -> ApiResult<Profile>;

    /// Renders.
    #[object_store(bucket = "reports", key = "report.<path..>", max_bytes = "64MiB")]
    #[endpoint(subject = "render", timeout = "1m", metadata(slow = "yes"), queue_group = false)]
    async fn render(&self, path: &str) -> Vec<u8>;

    /// Is told of its call.
    #[kv_evict(bucket = "user_profiles", key = "told.<id>")]
    async fn told(&self, id: u64, #[context] ctx: &nats_service::Context, text: &str) -> usize;

    /// Is told of its call, and of nothing else.
    async fn alone(&self, #[nats_service::context] ctx: &nats_service::Context);

    /// Answers nothing and takes nothing.
    async fn ping(&self);

    /// A helper.
    async fn both(&self, id: &str) -> Option<u64> {
        self.ping().await;
        let id = id.parse().ok()?;
        Some(id)
    }

    /// A plain one.
    fn plain<T: Default>(&self) -> T {
        T::default()
    }
}

struct Service;

impl Profiles for Service {
    async fn save_profile(&self, request: SaveProfile<'_>) -> Result<Profile, nats_service::Error> {
        Ok(Profile { id: request.id.len() as u64 })
    }

    async fn make(&self, name: Cow<'_, str>, _count: u32, _text: &str) -> ApiResult<Profile> {
        Ok(Profile { id: self.both(&name).await.unwrap_or_default() })
    }

    async fn render(&self, _path: &str) -> Vec<u8> {
        self.plain()
    }

    async fn told(&self, id: u64, ctx: &nats_service::Context, text: &str) -> usize {
        id as usize + text.len() + ctx.headers().len()
    }

    async fn alone(&self, _ctx: &nats_service::Context) {}

    async fn ping(&self) {}
}

async fn use_it(nats: nats_service::async_nats::Client, js: nats_service::async_nats::jetstream::Context) -> Result<(), Box<dyn std::error::Error>> {
    let running = nats_service::Server::new(nats.clone()).serve(ProfilesServer::new(Service)).start().await?;
    let client = ProfilesClient::new(nats).with_jetstream(js);
    let request = SaveProfile { id: "a", address: Address { city: "b".into() }, r#type: 1 };
    let saved: Profile = client.save_profile(&request).await?;
    let _: Profile = client.save_profile(request).await?;
    let _: Profile = client.make(Cow::Borrowed("x"), 3, "text").await?;
    let _: Vec<u8> = client.render("a/b").await?;
    let () = client.ping().await?;
    let _: usize = client.clone().with_header("X-A", "b")?.told(&7, "text").header("X-B", "c").await?;
    let () = client.alone().await?;
    let stores = client.stores()?;
    let _ = stores.save_profile().at("a", "b", 3)?;
    let _ = stores.save_profile().matching("a", Any, 7)?;
    let _ = stores.make().at(saved.id, "a@b.c")?;
    let _ = stores.render().matching(Any)?;
    let _ = running;
    Ok(())
}

fn main() {
    let _ = use_it;
    let spec = ProfilesContract::SPEC;
    assert_eq!((spec.name, spec.version, spec.description), ("profiles", "1.0.0", "User profiles."));
    let subjects: Vec<&str> = spec.methods.iter().map(|method| method.subject).collect();
    assert_eq!(subjects, ["profiles.save_profile", "profiles.make", "profiles.render", "profiles.told", "profiles.alone", "profiles.ping"]);
    assert_eq!(spec.methods[1].stores[1].bucket, spec.methods[0].stores[0].bucket);
}
