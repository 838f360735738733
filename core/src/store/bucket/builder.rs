//! The settings of a KV bucket that a program makes at run time: all that the server has for one.
//!
//! An attribute has the few that services name; here is the rest, too: where it is placed, what it copies, what it republishes.

use super::settings::{
    FAST_INGEST, Named, Settings, boolean, compressed, duration, nanos, number, quoted, setting,
    whole,
};
use super::{Provision, ProvisionError, Storage};
use crate::wire::spec::StoreKind;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What a KV bucket is to be like: for [`KvStore::create`](crate::KvStore::create).
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
#[must_use = "settings make no bucket by themselves: pass them to `KvStore::create`"]
pub struct BucketSettings {
    name: String,
    history: Option<u8>,
    ttl: Option<Duration>,
    key_ttl: Option<bool>,
    limit_markers: Option<Duration>,
    description: Option<String>,
    replicas: Option<u8>,
    storage: Option<Storage>,
    max_bytes: Option<u64>,
    max_value_size: Option<u32>,
    compression: Option<bool>,
    atomic: Option<bool>,
    fast_ingest: Option<bool>,
    placement: Option<Placement>,
    republish: Option<Republish>,
    mirror: Option<Origin>,
    mirror_direct: Option<bool>,
    sources: Vec<Origin>,
    metadata: Map<String, Value>,
    direct_get: Option<bool>,
    provision: Provision,
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

    fn value(&self) -> Value {
        let mut value = json!({ "name": format!("KV_{}", self.bucket) });
        if self.api.is_some() || self.deliver.is_some() {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            value["external"] = json!({ "api": text(&self.api), "deliver": text(&self.deliver) });
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
    pub fn history(mut self, revisions: u8) -> Self {
        self.history = Some(revisions);
        self
    }

    /// How long an entry lives; at least 100 ms.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Whether keys may have times to live of their own ([`KvKey::with_ttl`](crate::KvKey::with_ttl)). It cannot be taken back.
    pub fn key_ttl(mut self, allowed: bool) -> Self {
        self.key_ttl = Some(allowed);
        self
    }

    /// An entry that ends by itself leaves a mark for so long, by which watches hear of it; whole seconds. Allows
    /// [`key_ttl`](Self::key_ttl), too.
    pub fn limit_markers(mut self, stay: Duration) -> Self {
        self.limit_markers = Some(stay);
        self
    }

    /// What it is for.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Copies, 1 to 5.
    pub fn replicas(mut self, replicas: u8) -> Self {
        self.replicas = Some(replicas);
        self
    }

    /// Where the server keeps it.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = Some(storage);
        self
    }

    /// The whole bucket's bound, in bytes.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// One value's bound, in bytes, headers included: below some hundred bytes it refuses deletions, too.
    pub fn max_value_size(mut self, bytes: u32) -> Self {
        self.max_value_size = Some(bytes);
        self
    }

    /// S2 compression on disk.
    pub fn compression(mut self, on: bool) -> Self {
        self.compression = Some(on);
        self
    }

    /// Whether it takes [transactions](crate::Transaction): several keys at once. Needs nats-server 2.12.
    pub fn atomic(mut self, on: bool) -> Self {
        self.atomic = Some(on);
        self
    }

    /// Whether it takes many writes in one batch, which is how a [`KvWriter`](crate::KvWriter) and the answers of a service are
    /// written fastest. Needs nats-server 2.14; a bucket that has it is not served by an older one. Left out, a new bucket
    /// has it where the server can.
    pub fn fast_ingest(mut self, on: bool) -> Self {
        self.fast_ingest = Some(on);
        self
    }

    /// Which servers may keep it.
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// Publishes its writes again.
    pub fn republish(mut self, republish: Republish) -> Self {
        self.republish = Some(republish);
        self
    }

    /// A copy of another bucket: read here, and written to there.
    pub fn mirror(mut self, origin: Origin) -> Self {
        self.mirror = Some(origin);
        self
    }

    /// Whether a mirror answers `get` of its origin, too; it does unless this says otherwise.
    pub fn mirror_direct(mut self, on: bool) -> Self {
        self.mirror_direct = Some(on);
        self
    }

    /// Copies the keys of another bucket into this one, besides what is written here and comes from other sources. The last
    /// write of a key stays, wherever it came from.
    pub fn source(mut self, origin: Origin) -> Self {
        self.sources.push(origin);
        self
    }

    /// A pair that is kept with the bucket.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), Value::from(value.into()));
        self
    }

    /// Whether every replica answers reads; it does unless this says otherwise.
    pub fn direct_get(mut self, on: bool) -> Self {
        self.direct_get = Some(on);
        self
    }

    /// What to do when the bucket is there, or is not.
    pub fn provision(mut self, provision: Provision) -> Self {
        self.provision = provision;
        self
    }

    /// What the server would refuse in words of its own, or take otherwise.
    pub(crate) fn check(&self) -> Result<(), ProvisionError> {
        let wrong = |setting, reason: &str| {
            Err(ProvisionError::Setting {
                bucket: self.name.clone(),
                setting,
                reason: reason.to_owned(),
            })
        };
        let names = [&self.mirror].into_iter().flatten().chain(&self.sources);
        let mut names = names.map(|origin| &origin.bucket).chain([&self.name]);
        if names.any(|name| crate::store::stream::check_bucket(name).is_err()) {
            return wrong(
                "name",
                "use letters, digits, `-` and `_` of ASCII, at most 250 of them",
            );
        }
        if self
            .history
            .is_some_and(|history| !(1..=64).contains(&history))
        {
            return wrong("history", "the server keeps 1 to 64 revisions of a key");
        }
        let markers = self.limit_markers;
        if markers.is_some_and(|stay| stay.as_secs() == 0 || stay.subsec_nanos() > 0) {
            return wrong("limit_markers", "say whole seconds, at least one");
        }
        if markers.is_some() && self.key_ttl == Some(false) {
            return wrong("key_ttl", "limit markers need it: leave it out");
        }
        if self.mirror.is_some() && !self.sources.is_empty() {
            return wrong(
                "mirror",
                "a mirror is a copy of one bucket: use `source` for each of several",
            );
        }
        Ok(())
    }
}

impl Settings for BucketSettings {
    fn name(&self) -> &str {
        &self.name
    }

    fn provision(&self) -> Provision {
        self.provision
    }

    fn named(&self, _kind: StoreKind) -> Vec<Named> {
        let time = |time: Option<Duration>| time.map(|time| json!(nanos(time)));
        let storage = self.storage.map(|storage| match storage {
            Storage::File => json!("file"),
            Storage::Memory => json!("memory"),
        });
        let compression = self.compression;
        let compression = compression.map(|on| json!(if on { "s2" } else { "none" }));
        let placement = self.placement.as_ref().map(|placement| {
            let mut value = json!({});
            if let Some(cluster) = &placement.cluster {
                value["cluster"] = json!(cluster);
            }
            if !placement.tags.is_empty() {
                value["tags"] = json!(placement.tags);
            }
            value
        });
        let republish = self.republish.as_ref().map(|republish| {
            json!({
                "src": republish.source,
                "dest": republish.destination,
                "headers_only": republish.headers_only,
            })
        });
        let mirror_direct = self.mirror_direct.or(self.mirror.as_ref().map(|_| true));
        let sources: Vec<Value> = self
            .sources
            .iter()
            .map(|it| self.source_value(it))
            .collect();
        let sources = (!sources.is_empty()).then(|| Value::from(sources));
        let metadata = (!self.metadata.is_empty()).then(|| self.metadata.clone().into());
        [
            setting(
                "history",
                "max_msgs_per_subject",
                self.history.map(Value::from),
                number,
            ),
            setting("ttl", "max_age", time(self.ttl), duration),
            setting(
                "key_ttl",
                "allow_msg_ttl",
                self.key_ttl.map(Value::from),
                boolean,
            ),
            setting(
                "limit_markers",
                "subject_delete_marker_ttl",
                time(self.limit_markers),
                duration,
            ),
            setting(
                "description",
                "description",
                self.description.clone().map(Value::from),
                quoted,
            ),
            setting(
                "replicas",
                "num_replicas",
                self.replicas.map(Value::from),
                number,
            ),
            setting("storage", "storage", storage, quoted),
            setting(
                "max_bytes",
                "max_bytes",
                self.max_bytes.map(Value::from),
                number,
            ),
            setting(
                "max_value_size",
                "max_msg_size",
                self.max_value_size.map(Value::from),
                number,
            ),
            setting("compression", "compression", compression, compressed),
            setting(
                "atomic",
                "allow_atomic",
                self.atomic.map(Value::from),
                boolean,
            ),
            setting(
                "fast_ingest",
                FAST_INGEST,
                self.fast_ingest.map(Value::from),
                boolean,
            ),
            setting("placement", "placement", placement, whole),
            setting("republish", "republish", republish, whole),
            setting(
                "mirror",
                "mirror",
                self.mirror.as_ref().map(Origin::value),
                whole,
            ),
            setting(
                "mirror_direct",
                "mirror_direct",
                mirror_direct.map(Value::from),
                boolean,
            ),
            setting("source", "sources", sources, whole),
            setting("metadata", "metadata", metadata, whole),
            setting(
                "direct_get",
                "allow_direct",
                self.direct_get.map(Value::from),
                boolean,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl BucketSettings {
    /// A source, whose keys become keys of this bucket.
    fn source_value(&self, origin: &Origin) -> Value {
        let mut value = origin.value();
        value["subject_transforms"] = json!([{
            "src": format!("$KV.{}.>", origin.bucket),
            "dest": format!("$KV.{}.>", self.name),
        }]);
        value
    }
}
