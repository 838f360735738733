//! The settings of a bucket, as a program names them at run time: all that the server has for one.
//!
//! An attribute has the few that services name, and becomes the same; here is the rest, too: where it is placed, what it copies,
//! what it republishes.

use super::settings::{self, Setting};
use super::{BucketSpec, Provision, ProvisionError, Storage};
use crate::store::stream::{check_bucket, nanos, prefix};
use crate::wire::spec::StoreKind;
use serde_json::{Value, json};
use std::time::Duration;

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// What a bucket is to be like: for [`KvStore::create`](crate::KvStore::create) and
/// [`ObjectStore::create`](crate::ObjectStore::create).
///
/// What is not named is left to the server, and is not looked at in a bucket that is there.
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// use nats_service::{BucketSettings, KvStore, Provision, ProvisionError, Storage};
///
/// let settings = BucketSettings::new("leases")
///     .history(5)
///     .storage(Storage::Memory)
///     .limit_markers(Duration::from_secs(60))
///     .metadata("team", "blue");
/// let leases = KvStore::<String>::create(js.clone(), settings.clone()).await?;
/// leases.key("printer")?.with_ttl(Duration::from_secs(30)).create(&"me".into()).await?;
///
/// // A bucket that is there is never changed unasked.
/// match KvStore::<String>::create(js.clone(), settings.clone().history(7)).await {
///     Err(ProvisionError::Differs { differences, .. }) => assert_eq!(differences[0].setting, "history"),
///     other => panic!("{other:?}"),
/// }
/// KvStore::<String>::create(js, settings.history(7).provision(Provision::Update)).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "settings make no bucket by themselves: pass them to `create` of a store"]
pub struct BucketSettings {
    pub(super) name: String,
    /// Each setting once, as its stream has it, in the order in which they were named.
    pub(super) named: Vec<(&'static Setting, Value)>,
    pub(super) provision: Provision,
}

/// Which servers of a cluster may keep a bucket.
///
/// ```
/// # use nats_service::Placement;
/// let placement = Placement::default().cluster("eu-1").tag("ssd");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    cluster: Option<String>,
    tags: Vec<String>,
}

impl Placement {
    /// Those of this cluster.
    #[must_use]
    pub fn cluster(mut self, cluster: impl Into<String>) -> Self {
        self.cluster = Some(cluster.into());
        self
    }

    /// Those with this tag, besides the others.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    fn value(self) -> Value {
        let mut value = json!({});
        if let Some(cluster) = self.cluster {
            value["cluster"] = json!(cluster);
        }
        if !self.tags.is_empty() {
            value["tags"] = json!(self.tags);
        }
        value
    }
}

/// Writes that are published again, for those who listen without JetStream.
///
/// ```
/// # use nats_service::Republish;
/// // Every write of `$KV.ports.<key>` as `changed.<key>`.
/// let republish = Republish::new("$KV.ports.>", "changed.>");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Republish {
    source: String,
    destination: String,
    headers_only: bool,
}

impl Republish {
    /// From these subjects of the bucket (`$KV.<bucket>.>`) to those, as a subject mapping.
    #[must_use]
    pub fn new(source: impl Into<String>, destination: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            headers_only: false,
        }
    }

    /// Without the values.
    #[must_use]
    pub fn headers_only(mut self) -> Self {
        self.headers_only = true;
        self
    }

    fn value(self) -> Value {
        json!({
            "src": self.source,
            "dest": self.destination,
            "headers_only": self.headers_only,
        })
    }
}

/// The bucket that another one copies.
///
/// ```
/// # use nats_service::Origin;
/// let near = Origin::bucket("ports");
/// let far = Origin::bucket("ports").domain("hub");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    bucket: String,
    api: Option<String>,
    deliver: Option<String>,
}

impl Origin {
    /// A bucket of this account and domain.
    #[must_use]
    pub fn bucket(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            api: None,
            deliver: None,
        }
    }

    /// In another JetStream domain: that of a hub, say.
    #[must_use]
    pub fn domain(self, domain: impl AsRef<str>) -> Self {
        self.api_prefix(format!("$JS.{}.API", domain.as_ref()))
    }

    /// In another account, whose API is imported under this prefix.
    #[must_use]
    pub fn api_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.api = Some(prefix.into());
        self
    }

    /// Where its messages are delivered to, if that is imported under a prefix of its own.
    #[must_use]
    pub fn deliver_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.deliver = Some(prefix.into());
        self
    }

    fn value(self) -> Value {
        let mut value = json!({ "name": format!("{}{}", prefix(StoreKind::Kv), self.bucket) });
        if self.api.is_some() || self.deliver.is_some() {
            let text = |part: Option<String>| part.unwrap_or_default();
            value["external"] = json!({ "api": text(self.api), "deliver": text(self.deliver) });
        }
        value
    }
}

impl BucketSettings {
    /// Of a bucket of this name.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            name: bucket.into(),
            ..Self::default()
        }
    }

    /// Revisions kept of every key, 1 to 64.
    pub fn history(self, revisions: u8) -> Self {
        self.with(&settings::HISTORY, Some(revisions))
    }

    /// How long an entry lives; at least 100 ms.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.with(&settings::TTL, Some(nanos(ttl)))
    }

    /// Whether keys may have times to live of their own ([`KvKey::with_ttl`](crate::KvKey::with_ttl)). It cannot be taken back.
    pub fn key_ttl(self, allowed: bool) -> Self {
        self.with(&settings::KEY_TTL, Some(allowed))
    }

    /// An entry that ends by itself leaves a mark for so long, by which watches hear of it; whole seconds. Allows
    /// [`key_ttl`](Self::key_ttl), too.
    pub fn limit_markers(self, stay: Duration) -> Self {
        self.with(&settings::LIMIT_MARKERS, Some(nanos(stay)))
    }

    /// What it is for.
    pub fn description(self, text: impl Into<String>) -> Self {
        self.with(&settings::DESCRIPTION, Some(text.into()))
    }

    /// Copies, 1 to 5.
    pub fn replicas(self, replicas: u8) -> Self {
        self.with(&settings::REPLICAS, Some(replicas))
    }

    /// Where the server keeps it.
    pub fn storage(self, storage: Storage) -> Self {
        self.with(&settings::STORAGE, Some(stored(storage)))
    }

    /// The whole bucket's bound, in bytes.
    pub fn max_bytes(self, bytes: u64) -> Self {
        self.with(&settings::MAX_BYTES, Some(bytes))
    }

    /// One value's bound, in bytes, headers included: below some hundred bytes it refuses deletions, too.
    pub fn max_value_size(self, bytes: u32) -> Self {
        self.with(&settings::MAX_VALUE_SIZE, Some(bytes))
    }

    /// S2 compression on disk.
    pub fn compression(self, on: bool) -> Self {
        self.with(&settings::COMPRESSION, Some(compressed(on)))
    }

    /// Whether it takes [transactions](crate::Transaction): several keys at once. In a bucket of objects a
    /// [rename](crate::ObjectKey::rename) is one step then. Needs nats-server 2.12.
    pub fn atomic(self, on: bool) -> Self {
        self.with(&settings::ATOMIC, Some(on))
    }

    /// Whether it takes many writes in one batch, which is how a [`KvWriter`](crate::KvWriter) and the answers of a service are
    /// written fastest. Needs nats-server 2.14; a bucket that has it is not served by an older one. Left out, a new bucket
    /// has it where the server can.
    pub fn fast_ingest(self, on: bool) -> Self {
        self.with(&settings::FAST_INGEST, Some(on))
    }

    /// Which servers may keep it.
    pub fn placement(self, placement: Placement) -> Self {
        self.with(&settings::PLACEMENT, Some(placement.value()))
    }

    /// Publishes its writes again.
    pub fn republish(self, republish: Republish) -> Self {
        self.with(&settings::REPUBLISH, Some(republish.value()))
    }

    /// A copy of another bucket: read here, and written to there.
    pub fn mirror(self, origin: Origin) -> Self {
        let direct = self.get(&settings::MIRROR_DIRECT).is_none();
        self.with(&settings::MIRROR, Some(origin.value()))
            .with(&settings::MIRROR_DIRECT, direct.then_some(true))
    }

    /// Whether a mirror answers `get` of its origin, too; it does unless this says otherwise.
    pub fn mirror_direct(self, on: bool) -> Self {
        self.with(&settings::MIRROR_DIRECT, Some(on))
    }

    /// Copies the keys of another bucket into this one, besides what is written here and comes from other sources. The last
    /// write of a key stays, wherever it came from.
    pub fn source(self, origin: Origin) -> Self {
        let transform = json!([{
            "src": format!("$KV.{}.>", origin.bucket),
            "dest": format!("$KV.{}.>", self.name),
        }]);
        let mut source = origin.value();
        source["subject_transforms"] = transform;
        let mut sources = self.get(&settings::SOURCES).cloned().unwrap_or(json!([]));
        if let Some(sources) = sources.as_array_mut() {
            sources.push(source);
        }
        self.with(&settings::SOURCES, Some(sources))
    }

    /// A pair that is kept with the bucket.
    pub fn metadata(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let mut pairs = self.get(&settings::METADATA).cloned().unwrap_or_default();
        pairs[name.into()] = Value::from(value.into());
        self.with(&settings::METADATA, Some(pairs))
    }

    /// Whether every replica answers reads; it does unless this says otherwise.
    pub fn direct_get(self, on: bool) -> Self {
        self.with(&settings::DIRECT_GET, Some(on))
    }

    /// What to do when the bucket is there, or is not.
    pub fn provision(mut self, provision: Provision) -> Self {
        self.provision = provision;
        self
    }

    /// Names a setting, if there is a value for it.
    pub(super) fn with(
        mut self,
        setting: &'static Setting,
        value: Option<impl Into<Value>>,
    ) -> Self {
        if let Some(value) = value {
            let mut named = self.named.iter_mut();
            match named.find(|(named, _)| named.field == setting.field) {
                Some((_, named)) => *named = value.into(),
                None => self.named.push((setting, value.into())),
            }
        }
        self
    }

    /// What was named for a setting.
    pub(super) fn get(&self, setting: &Setting) -> Option<&Value> {
        let mut named = self.named.iter();
        let found = named.find(|(named, _)| named.field == setting.field);
        found.map(|(_, value)| value)
    }

    /// The bucket.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Object stores are streams too, and the server would take what means nothing there.
    pub(crate) fn check_objects(&self) -> Result<(), ProvisionError> {
        let of_kv = [
            &settings::HISTORY,
            &settings::KEY_TTL,
            &settings::LIMIT_MARKERS,
            &settings::MAX_VALUE_SIZE,
            &settings::FAST_INGEST,
            &settings::REPUBLISH,
            &settings::MIRROR,
            &settings::MIRROR_DIRECT,
            &settings::SOURCES,
        ];
        let named = of_kv
            .into_iter()
            .find(|setting| self.get(setting).is_some());
        named.map_or(Ok(()), |setting| {
            Err(ProvisionError::Setting {
                bucket: self.name.clone(),
                setting: setting.name,
                reason: "it is one of KV buckets: leave it out for objects".to_owned(),
            })
        })
    }

    /// What the server would refuse in words of its own, or take otherwise.
    pub(super) fn check(&self) -> Result<(), ProvisionError> {
        let wrong = |setting, reason: &str| {
            Err(ProvisionError::Setting {
                bucket: self.name.clone(),
                setting,
                reason: reason.to_owned(),
            })
        };
        let number = |setting| self.get(setting).and_then(Value::as_u64);
        let mirror = self.get(&settings::MIRROR);
        let sources = self.get(&settings::SOURCES).and_then(Value::as_array);
        let origins = mirror.into_iter().chain(sources.into_iter().flatten());
        let names = origins
            .filter_map(|origin| origin["name"].as_str()?.strip_prefix(prefix(StoreKind::Kv)));
        let mut names = names.chain([&*self.name]);
        if names.any(|name| check_bucket(name).is_err()) {
            return wrong(
                "name",
                "use letters, digits, `-` and `_` of ASCII, at most 250 of them",
            );
        }
        if number(&settings::HISTORY).is_some_and(|history| !(1..=64).contains(&history)) {
            return wrong("history", "the server keeps 1 to 64 revisions of a key");
        }
        let stay = number(&settings::LIMIT_MARKERS);
        if stay.is_some_and(|stay| stay == 0 || !stay.is_multiple_of(SECOND)) {
            return wrong("limit_markers", "say whole seconds, at least one");
        }
        if stay.is_some() && self.get(&settings::KEY_TTL) == Some(&json!(false)) {
            return wrong("key_ttl", "limit markers need it: leave it out");
        }
        if mirror.is_some() && sources.is_some() {
            return wrong(
                "mirror",
                "a mirror is a copy of one bucket: use `source` for each of several",
            );
        }
        Ok(())
    }
}

impl From<&BucketSpec> for BucketSettings {
    fn from(spec: &BucketSpec) -> Self {
        Self::new(spec.name)
            .provision(spec.provision)
            .with(&settings::HISTORY, spec.history)
            .with(&settings::TTL, spec.ttl.map(nanos))
            .with(&settings::KEY_TTL, spec.key_ttl)
            .with(&settings::LIMIT_MARKERS, spec.limit_markers.map(nanos))
            .with(&settings::DESCRIPTION, spec.description)
            .with(&settings::REPLICAS, spec.replicas)
            .with(&settings::STORAGE, spec.storage.map(stored))
            .with(&settings::MAX_BYTES, spec.max_bytes)
            .with(&settings::MAX_VALUE_SIZE, spec.max_value_size)
            .with(&settings::COMPRESSION, spec.compression.map(compressed))
            .with(&settings::ATOMIC, spec.atomic)
            .with(&settings::FAST_INGEST, spec.fast_ingest)
    }
}

/// As a stream has it.
fn stored(storage: Storage) -> &'static str {
    match storage {
        Storage::File => "file",
        Storage::Memory => "memory",
    }
}

/// As a stream has it.
fn compressed(on: bool) -> &'static str {
    if on { "s2" } else { "none" }
}
