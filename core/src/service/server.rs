//! Puts services on a connection: checks, makes the buckets, subscribes, and returns when the first request can come.

use super::cache::Cache;
use super::confirm::{confirm, denied_bucket};
use super::discovery::{self, Instance, Listed, Metadata};
use super::endpoint::{EndpointLoop, Limits, Stop};
use super::finish::{Context, is_object_put};
use super::intake::Intake;
use super::invoke::{Mount, Mounted};
use super::placement::Placement;
use super::reply::ReplyRule;
use super::running::Running;
use super::start_error::StartError;
use super::stats::Stats;
use super::stores::Stores;
use super::streaming::{StreamLimits, Streams};
use crate::__private::Service;
use crate::connection::ConnectionEvents;
use crate::layer::{CallLayer, Layers};
use crate::store::persist::{Hooks, WriterLimits};
use crate::store::{BucketSettings, FailedWrite, StoredWrite};
use crate::telemetry::{self, EndpointMetrics};
use crate::wire::context::Origin;
use crate::wire::frame::Amount;
use crate::wire::outlet::Outlet;
use crate::wire::spec::{MethodSpec, ServiceSpec, StoreAction, WriteMode};
use async_nats::{Client, jetstream};
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Serves annotated traits on a NATS connection.
///
/// ```
/// # use nats_service::{Server, nats_service};
/// # use std::time::Duration;
/// #[nats_service]
/// pub trait Greeter {
///     async fn hello(&self, name: String) -> String;
/// }
///
/// struct Polite;
/// impl Greeter for Polite {
///     async fn hello(&self, name: String) -> String {
///         format!("Good day, {name}!")
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// let nats = async_nats::connect(server.url()).await?;
/// let running = Server::new(nats.clone()).serve(GreeterServer::new(Polite)).start().await?;
///
/// assert_eq!(GreeterClient::new(nats).hello("Ada".to_string()).await?, "Good day, Ada!");
/// running.shutdown(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing until it is started"]
pub struct Server {
    client: Client,
    jetstream: Option<jetstream::Context>,
    services: Vec<(&'static ServiceSpec, Mount)>,
    limits: Limits,
    stream_limits: StreamLimits,
    layers: Layers,
    reply_rule: ReplyRule,
    write_limits: WriterLimits,
    hooks: Hooks,
    placement: Placement,
    #[cfg(feature = "schema")]
    contracts: Vec<crate::contract::ShortForms>,
    events: Option<ConnectionEvents>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("services", &self.services)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server on this connection. It serves nothing yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            jetstream: None,
            services: Vec::new(),
            limits: Limits::default(),
            stream_limits: StreamLimits::default(),
            layers: Layers::default(),
            reply_rule: ReplyRule::default(),
            write_limits: WriterLimits::default(),
            hooks: Hooks::default(),
            placement: Placement::default(),
            #[cfg(feature = "schema")]
            contracts: Vec::new(),
            events: None,
        }
    }

    /// Gives it JetStream. Without it calls are answered, and nothing is stored.
    pub fn with_jetstream(mut self, jetstream: jetstream::Context) -> Self {
        self.jetstream = Some(jetstream);
        self
    }

    /// Lets it see what the NATS server says to the connection: it then does not start when a subscription is denied.
    /// See [`ConnectionEvents`].
    pub fn with_events(mut self, events: &ConnectionEvents) -> Self {
        self.events = Some(events.clone());
        self
    }

    /// Lets its services understand this codec too, besides their own and those in the box: in requests that name it in
    /// `Content-Type`, and for answers that are asked for in it by `Accept`. See [`Codec::register`](crate::Codec::register).
    ///
    /// # Errors
    /// When its media type is another codec's already.
    #[cfg(feature = "codecs")]
    pub fn with_codec(self, codec: crate::Codec) -> Result<Self, crate::wire::codec::CodecTaken> {
        codec.register()?;
        Ok(self)
    }

    /// Adds a service: the generated `..Server` around your implementation.
    pub fn serve(mut self, service: impl Service) -> Self {
        let spec = service.spec();
        let mut mount = Mount::default();
        service.mount(&mut mount);
        self.services.push((spec, mount));
        self
    }

    /// Puts a layer of tower around every method of every service, outside of those that a service has itself. The first layer
    /// is the outermost. Needs the feature `tower`.
    pub fn layer(mut self, layer: impl CallLayer) -> Self {
        self.layers.push(layer);
        self
    }

    /// How many requests of one endpoint run at once (1,024). More wait for their turn.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.limits.max_in_flight = requests.max(1);
        self
    }

    /// How many requests of one endpoint wait (4,096), and with how many bytes in all (16 MiB). More than that are
    /// answered with `ResourceExhausted` at once.
    pub fn max_waiting(mut self, requests: usize, bytes: usize) -> Self {
        self.limits.max_waiting = requests;
        self.limits.max_waiting_bytes = bytes;
        self
    }

    /// How many streams may be open at once, of all endpoints (1,024). Each counts among the requests in flight of its
    /// endpoint, too. More than that are answered with `ResourceExhausted` at once.
    pub fn max_streams(mut self, streams: usize) -> Self {
        self.stream_limits.most = streams;
        self
    }

    /// How much of a caller's stream may be under way or unread: so many items (1,024), and so many bytes (256 KiB), which
    /// the last item may exceed. It bounds the memory of each stream, and its speed: a window in a round trip.
    pub fn stream_window(mut self, items: usize, bytes: usize) -> Self {
        self.stream_limits.window = Amount::window(items, bytes);
        self
    }

    /// How many answers of one bucket may be pending (65,536), and with how many bytes in all (64 MiB). When a bucket's
    /// writer is full, requests wait for up to a second, and are then answered with `ResourceExhausted`.
    pub fn max_pending_writes(mut self, writes: usize, bytes: usize) -> Self {
        self.write_limits.max_writes = writes;
        self.write_limits.max_bytes = bytes;
        self
    }

    /// How long a request waits for room in a bucket's writer before it is refused (1 s).
    pub fn write_patience(mut self, patience: Duration) -> Self {
        self.limits.patience = patience;
        self
    }

    /// Is called with every answer that can never be stored (the bucket is full, the value too large), and at a
    /// shutdown's deadline with those that are not stored yet: the place to put them elsewhere. The call blocks the
    /// bucket's writer: hand the value on, do not work on it.
    pub fn on_failed_write(mut self, hook: impl Fn(&FailedWrite) + Send + Sync + 'static) -> Self {
        self.hooks.failed = Some(Arc::new(hook));
        self
    }

    /// Is called with every answer that is stored and every key that is evicted, once the server has acknowledged it: bucket,
    /// key and revision, before or after the reply. What a cache writes is not told. The call blocks the bucket's writer: hand
    /// on what you need, do not work on it.
    ///
    /// ```
    /// # use nats_service::{Server, nats_service};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let nats = async_nats::connect(server.url()).await?;
    /// # let js = async_nats::jetstream::new(nats.clone());
    /// # #[nats_service] trait Notes {
    /// #     #[kv_store(bucket = "notes", key = "note.<id>")] async fn save(&self, id: u64) -> u64;
    /// # }
    /// # struct Desk; impl Notes for Desk { async fn save(&self, id: u64) -> u64 { id } }
    /// let (told, mut stored) = tokio::sync::mpsc::unbounded_channel();
    /// let running = Server::new(nats.clone())
    ///     .with_jetstream(js)
    ///     .on_stored_write(move |write| drop(told.send(write.clone())))
    ///     .serve(NotesServer::new(Desk))
    ///     .start()
    ///     .await?;
    ///
    /// NotesClient::new(nats).save(7).await?;
    /// let write = stored.recv().await.ok_or("nothing was stored")?;
    /// assert_eq!((&*write.bucket, &*write.key, write.revision), ("notes", "note.7", Some(1)));
    /// # running.shutdown(std::time::Duration::from_secs(10)).await?; Ok(()) }
    /// ```
    ///
    /// Its writes are sent one by one, not in batches, as only then the server tells their revisions.
    pub fn on_stored_write(mut self, hook: impl Fn(&StoredWrite) + Send + Sync + 'static) -> Self {
        self.hooks.stored = Some(Arc::new(hook));
        self
    }

    /// Answers requests whose reply subject is under `prefix` too, for callers with an inbox prefix of their own.
    /// `_INBOX` always is. A prefix that begins with `$` is ignored: those subjects are the server's.
    pub fn allow_reply_prefix(mut self, prefix: &str) -> Self {
        self.reply_rule.allow(prefix);
        self
    }

    /// Puts all subjects under a prefix: with `"staging"`, `profiles.save` is served as `staging.profiles.save`. A generated
    /// client calls there with `with_prefix("staging")`; one that knows nothing of it can be led there by an account's subject
    /// mapping (`profiles.>` to `staging.profiles.>`) or import. Discovery stays where it is, and shows the subjects as they are;
    /// the names of buckets stay too, so give environments that must not share their state an account each.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.placement.prefix(prefix);
        self
    }

    /// The queue group of these services' endpoints, instead of what their traits say. Requests are divided among the instances
    /// of one group, and each group gets all of them: a second group sees what the first does. An endpoint that says
    /// its own (`#[endpoint(queue_group = ..)]`), or that it has none, keeps to that.
    pub fn queue_group(mut self, name: &str) -> Self {
        self.placement.queue_group(Some(name));
        self
    }

    /// No queue group for these services' endpoints: every instance gets every request. Endpoints that say their own keep it.
    pub fn no_queue_group(mut self) -> Self {
        self.placement.queue_group(None);
        self
    }

    /// Shows the short form of a contract in discovery: `nats micro info` then has, in the metadata of each endpoint, its
    /// `request`, `answer`, `errors` and `stores`, and in the service's the `contract`'s digest. What the trait says in
    /// `metadata(..)` under the same names stays.
    ///
    /// ```
    /// # use nats_service::{Server, nats_service};
    /// # #[nats_service] pub trait Greeter { async fn hello(&self, name: String) -> String; }
    /// # struct Polite; impl Greeter for Polite { async fn hello(&self, name: String) -> String { name } }
    /// # fn serve(nats: nats_service::async_nats::Client) {
    /// let server = Server::new(nats)
    ///     .serve(GreeterServer::new(Polite))
    ///     .describe(&GreeterContract::asyncapi());
    /// # }
    /// ```
    #[cfg(feature = "schema")]
    pub fn describe(mut self, contract: &crate::contract::AsyncApi) -> Self {
        self.contracts.push(contract.short_forms());
        self
    }

    /// Starts: makes the buckets, subscribes, and returns when the NATS server has confirmed the subscriptions.
    ///
    /// # Errors
    /// When a bucket cannot be made or differs from what its attribute says, the connection does not work, or, where the
    /// connection is [observed](Self::with_events), a subscription or the making of a bucket is denied.
    pub async fn start(self) -> Result<Running, StartError> {
        self.starting().await
    }

    /// Boxed, so that it and whatever it polls is compiled with this crate, and not with each that starts a server.
    fn starting(self) -> Pin<Box<dyn Future<Output = Result<Running, StartError>> + Send>> {
        Box::pin(self.start_here())
    }

    async fn start_here(mut self) -> Result<Running, StartError> {
        if self.services.is_empty() {
            return Err(StartError::NoService);
        }
        self.check_subjects()?;
        #[cfg(feature = "codecs")]
        for method in self.methods() {
            method.codec.register()?;
        }
        self.placement.check()?;
        let denied = denied_bucket(self.events.clone(), self.streams());
        let stores = tokio::select! {
            stores = self.open_stores() => stores?,
            denial = denied => return Err(StartError::Denied(denial)),
        };
        let begun = Instant::now();

        let Self {
            client,
            jetstream,
            services,
            limits,
            stream_limits,
            #[cfg(feature = "tower")]
            layers,
            reply_rule,
            placement,
            #[cfg(feature = "schema")]
            contracts,
            events,
            ..
        } = self;
        telemetry::describe();
        let reply_rule = Arc::new(reply_rule);
        let streams = Streams::new(Outlet::Nats(client.clone()), &reply_rule, stream_limits);
        let stop = Stop::default();
        let (mut endpoints, mut discovery) = (JoinSet::new(), JoinSet::new());
        let mut subjects = Vec::new();
        for (spec, mount) in services {
            let metadata = Metadata::of(spec);
            #[cfg(feature = "schema")]
            let metadata = metadata.with_contracts(spec, &contracts);
            let mut instance = Instance {
                spec,
                metadata: metadata.service,
                id: instance_id(&client),
                started: discovery::now(),
                endpoints: Vec::new(),
                writers: stores.as_ref().map(|stores| stores.writers().clone()),
            };
            #[cfg(feature = "tower")]
            let layers = layers.and(&mount.layers);
            for Mounted {
                spec: method, bind, ..
            } in mount.endpoints
            {
                let stats = Arc::<Stats>::default();
                let place = placement.of(method);
                instance.endpoints.push(Listed {
                    spec: method,
                    place: place.clone(),
                    metadata: metadata
                        .endpoints
                        .get(method.name)
                        .cloned()
                        .unwrap_or_default(),
                    stats: Arc::clone(&stats),
                });
                let cache = match (&stores, &jetstream) {
                    (Some(stores), Some(jetstream)) => {
                        Cache::of(method, jetstream, |store| stores.writer(store), &stats)
                    }
                    _ => None,
                };
                let endpoint = bind(Context {
                    spec: method,
                    origin: Origin {
                        service: spec,
                        method,
                        subject: place.subject.as_str().into(),
                        instance: instance.id.as_str().into(),
                    },
                    client: Outlet::Nats(client.clone()),
                    everyone: place.queue_group.is_none(),
                    #[cfg(feature = "tower")]
                    layered: !layers.is_empty(),
                    reply_rule: Arc::clone(&reply_rule),
                    stats,
                    streams: Arc::clone(&streams),
                    metrics: EndpointMetrics::new(spec, method),
                    stores: stores
                        .as_ref()
                        .map(|stores| stores.of(method))
                        .unwrap_or_default(),
                    jetstream: jetstream.clone(),
                    cache,
                    patience: limits.patience,
                });
                #[cfg(feature = "tower")]
                let endpoint = super::layered::around(&layers, endpoint);
                let subject = place.subject.clone();
                subjects.push(subject.clone());
                let subscription = match place.queue_group {
                    Some(group) => client.queue_subscribe(subject, group).await,
                    None => client.subscribe(subject).await,
                };
                let subscription = subscription.map_err(|source| StartError::Subscribe {
                    subject: place.subject,
                    source,
                })?;
                let intake = Intake::Nats(client.clone(), subscription);
                endpoints.spawn(
                    EndpointLoop::new(endpoint, intake, limits.of(method), stop.clone()).run(),
                );
            }
            let asked = discovery::subscribe(&client, &instance)
                .await
                .map_err(|source| StartError::Subscribe {
                    subject: "$SRV.>".to_owned(),
                    source,
                })?;
            let done = stop.discovery.clone();
            discovery.spawn(asked.run(
                client.clone(),
                Arc::new(instance),
                Arc::clone(&reply_rule),
                done,
            ));
        }
        let running = Running {
            client,
            stop,
            streams,
            endpoints,
            discovery,
            writers: stores.as_ref().map(|stores| stores.writers().clone()),
        };
        confirm(&running.client, events.as_ref(), begun, &subjects).await?;
        Ok(running)
    }

    fn check_subjects(&self) -> Result<(), StartError> {
        let mut seen = HashSet::new();
        for method in self.methods() {
            if !seen.insert(method.subject) {
                return Err(StartError::SubjectTaken {
                    subject: method.subject,
                });
            }
        }
        Ok(())
    }

    fn mounted(&self) -> impl Iterator<Item = &Mounted> {
        self.services.iter().flat_map(|(_, mount)| &mount.endpoints)
    }

    fn methods(&self) -> impl Iterator<Item = &'static MethodSpec> {
        self.mounted().map(|mounted| mounted.spec)
    }

    /// An answer that is stored as it is produced needs a place for it.
    fn check_streams(&self) -> Result<(), StartError> {
        for method in self
            .mounted()
            .filter(|mounted| mounted.streams)
            .map(|mounted| mounted.spec)
        {
            let subject = method.subject;
            if !method.stores.iter().any(is_object_put) {
                return Err(StartError::StreamWithoutObject { subject });
            }
            let puts = method.stores.iter();
            let mut puts = puts.filter(|store| store.action == StoreAction::Put);
            if puts.clone().count() > 1
                || puts.any(|store| store.conditional || store.cache.is_some())
            {
                return Err(StartError::StreamKeptOtherwise { subject });
            }
            if self.jetstream.is_none() {
                return Err(StartError::NoJetStream { subject });
            }
        }
        Ok(())
    }

    /// The streams of all buckets.
    fn streams(&self) -> Vec<String> {
        let stores = self.methods().flat_map(|method| method.stores);
        let names = stores.map(|store| BucketSettings::from(&store.bucket).stream_name(store.kind));
        names.collect()
    }

    /// The stores; `None` without JetStream, which every method must then be able to bear.
    async fn open_stores(&mut self) -> Result<Option<Stores>, StartError> {
        self.check_streams()?;
        let methods: Vec<_> = self.methods().collect();
        if let Some(jetstream) = self.jetstream.clone() {
            let stores = Stores::open(
                jetstream,
                self.write_limits.clone(),
                std::mem::take(&mut self.hooks),
                &methods,
            )
            .await?;
            return Ok(Some(stores));
        }
        for method in methods {
            if method
                .stores
                .iter()
                .any(|store| store.write == WriteMode::BeforeReply && store.cache.is_none())
            {
                return Err(StartError::NoJetStream {
                    subject: method.subject,
                });
            }
            if !method.stores.is_empty() {
                tracing::warn!(
                    subject = method.subject,
                    "no JetStream: calls are answered, and nothing is stored; pass a context to `Server::with_jetstream`"
                );
            }
        }
        Ok(None)
    }
}

/// A new id: the last token of an inbox is a NUID.
fn instance_id(client: &Client) -> String {
    let inbox = client.new_inbox();
    inbox.rsplit('.').next().unwrap_or(&inbox).to_owned()
}
