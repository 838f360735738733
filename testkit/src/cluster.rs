//! Several servers as one JetStream cluster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::Error;
use crate::builder::{Membership, TestServerBuilder, unique_name};
use crate::find::{Environment, Found};
use crate::port::Port;
use crate::proxy::Proxy;
use crate::server::TestServer;
use crate::wait::wait_until;

/// How many times to try with other route ports, where a port can't be held for the server.
const PORT_ATTEMPTS: usize = 5;
/// How many times to found it, each with its part of the deadline: servers of 2.10 that start at once on a busy machine may found a
/// cluster of two, which the third never gets into.
const FOUNDINGS: u32 = 3;

/// Private nats-servers that form one JetStream cluster on the loopback address.
///
/// Every server is a [`TestServer`] and can be killed, paused and restarted on its own. After that,
/// [`wait_ready`](Self::wait_ready) waits until the cluster has found itself again.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nats_service_testkit::Error> {
/// use nats_service_testkit::TestCluster;
///
/// let cluster = TestCluster::start().await?;
/// let old = cluster.meta_leader().await?;
/// cluster.server(old).kill().await?;
/// let new = cluster.meta_leader().await?;     // waits for the election
/// assert_ne!(old, new);
///
/// cluster.server(old).restart().await?;
/// cluster.wait_ready().await?;                // all three are current again
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TestCluster {
    servers: Vec<TestServer>,
    url: String,
    deadline: Duration,
    links: Option<Links>,
    _routes: Vec<Port>,
}

/// A proxy on the way of every server to every other.
#[derive(Debug)]
struct Links {
    /// From the first to the second.
    proxies: Vec<(usize, usize, Proxy)>,
    /// Nobody answers there: what the servers tell each other of, since they would find ways past the proxies.
    nowhere: Port,
    /// By server: whether it is cut off or held back, so that its word does not count.
    cut: Vec<AtomicBool>,
}

/// The options of a [`TestCluster`].
#[derive(Debug, Clone)]
pub struct TestClusterBuilder {
    server: TestServerBuilder,
    size: usize,
    advertise: bool,
    partitions: bool,
}

impl TestClusterBuilder {
    /// How many servers; three by default, and at least two.
    #[must_use]
    pub fn size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// Whether the servers tell clients of each other; they do, by default, and clients then connect to servers that nobody named.
    /// Switch it off where a client must stay behind a [`Proxy`](crate::Proxy).
    #[must_use]
    pub fn advertise(mut self, on: bool) -> Self {
        self.advertise = on;
        self
    }

    /// Whether servers can be [cut off](TestCluster::cut_off) from each other, or [held back](TestCluster::hold_back); they cannot, by default. Their routes then go
    /// through proxies.
    #[must_use]
    pub fn partitions(mut self, on: bool) -> Self {
        self.partitions = on;
        self
    }

    /// See [`TestServerBuilder::version`].
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.server = self.server.version(version);
        self
    }

    /// Lines for the configuration file of every server; see [`TestServerBuilder::config`].
    #[must_use]
    pub fn config(mut self, lines: impl AsRef<str>) -> Self {
        self.server = self.server.config(lines);
        self
    }

    /// See [`TestServerBuilder::max_payload`].
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.server = self.server.max_payload(bytes);
        self
    }

    /// See [`TestServerBuilder::environment`].
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.server = self.server.environment(environment);
        self
    }

    /// See [`TestServerBuilder::deadline`].
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.server = self.server.deadline(deadline);
        self
    }

    /// Starts the servers, and returns when a leader is elected and all of them are its current peers.
    ///
    /// # Errors
    /// [`Error::ClusterSize`] for less than two servers, and what a single server can meet.
    pub async fn start(self) -> Result<TestCluster, Error> {
        if self.size < 2 {
            return Err(Error::ClusterSize { size: self.size });
        }
        let found = self.server.find().await?;
        let mut attempts = 1..=PORT_ATTEMPTS;
        let mut foundings = 1..FOUNDINGS;
        loop {
            match self.launch(&found).await {
                Err(Error::Exited { log, .. })
                    if log.contains("address already in use") && attempts.next().is_some() => {}
                Err(Error::Timeout { .. }) if foundings.next().is_some() => {}
                result => return result,
            }
        }
    }

    async fn launch(&self, found: &Found) -> Result<TestCluster, Error> {
        let routes = (0..self.size)
            .map(|_| Port::any())
            .collect::<Result<Vec<_>, _>>()?;
        let links = match self.partitions {
            true => Some(Links::start(&routes).await?),
            false => None,
        };
        // Of its own, so that a server which is given a wrong address by chance is turned away.
        let name = unique_name();
        let all: Vec<String> = routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{}", port.number()))
            .collect();
        let servers = routes
            .iter()
            .enumerate()
            .map(|(index, port)| {
                let membership = Membership {
                    cluster: name.clone(),
                    port: port.number(),
                    routes: match &links {
                        Some(links) => links.from(index).join(","),
                        None => all.join(","),
                    },
                    advertise: self.advertise,
                    route_advertise: links.as_ref().map(|links| links.nowhere.number()),
                };
                self.server
                    .clone()
                    .named(format!("{name}-{index}"), membership)
                    .launch(found.clone())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let url = servers
            .iter()
            .map(TestServer::url)
            .collect::<Vec<_>>()
            .join(",");
        let mut cluster = TestCluster {
            servers,
            url,
            deadline: self.server.limit() / FOUNDINGS,
            links,
            _routes: routes,
        };
        for server in &cluster.servers {
            server.ready().await?;
        }
        cluster.wait_ready().await?;
        cluster.deadline = self.server.limit();
        Ok(cluster)
    }
}

impl Links {
    async fn start(routes: &[Port]) -> Result<Self, Error> {
        let mut proxies = Vec::new();
        for from in 0..routes.len() {
            for (to, port) in routes.iter().enumerate().filter(|(to, _)| *to != from) {
                let proxy = Proxy::start(&format!("127.0.0.1:{}", port.number())).await?;
                proxies.push((from, to, proxy));
            }
        }
        Ok(Self {
            proxies,
            nowhere: Port::any()?,
            cut: routes.iter().map(|_| AtomicBool::new(false)).collect(),
        })
    }

    fn is_cut(&self, index: usize) -> bool {
        let cut = self.cut.get(index);
        cut.is_some_and(|cut| cut.load(Ordering::SeqCst))
    }

    /// The addresses at which one server finds the others.
    fn from(&self, index: usize) -> Vec<String> {
        let of_this = self.proxies.iter().filter(|(from, ..)| *from == index);
        of_this.map(|(.., proxy)| proxy.url().to_owned()).collect()
    }
}

impl TestCluster {
    /// Starts three servers with the defaults.
    ///
    /// # Errors
    /// See [`TestClusterBuilder::start`].
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// The options of a cluster.
    #[must_use]
    pub fn builder() -> TestClusterBuilder {
        TestClusterBuilder {
            server: TestServerBuilder::new(),
            size: 3,
            advertise: true,
            partitions: false,
        }
    }

    /// The addresses of all servers, separated by commas, as the `nats` tool and most clients take them. async-nats does
    /// not: give it [`urls`](Self::urls).
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The addresses of all servers: `async_nats::connect(cluster.urls())`.
    #[must_use]
    pub fn urls(&self) -> Vec<&str> {
        self.servers.iter().map(TestServer::url).collect()
    }

    /// The servers; their place is the index that the other methods speak of.
    #[must_use]
    pub fn servers(&self) -> &[TestServer] {
        &self.servers
    }

    /// One server.
    ///
    /// # Panics
    /// When there is none of this index.
    #[must_use]
    pub fn server(&self, index: usize) -> &TestServer {
        &self.servers[index]
    }

    /// Cuts a server off from the others; clients reach it still. One that led goes on answering what it knows, while the
    /// others elect another.
    ///
    /// # Errors
    /// [`Error::NoPartitions`] when the cluster was not made for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nats_service_testkit::Error> {
    /// use nats_service_testkit::TestCluster;
    ///
    /// let cluster = TestCluster::builder().partitions(true).start().await?;
    /// let old = cluster.meta_leader().await?;
    /// cluster.cut_off(old).await?;
    /// cluster.rejoin(old).await?;
    /// cluster.wait_ready().await?;
    /// # Ok(()) }
    /// ```
    pub async fn cut_off(&self, index: usize) -> Result<(), Error> {
        for proxy in self.links_of(index, true)? {
            proxy.cut().await?;
        }
        Ok(())
    }

    /// Lets a server fall behind: what the others agree on no longer reaches it, while clients reach it still, and messages of
    /// theirs pass between it and the others. It serves what it had, as a replica of a stream does that lags.
    ///
    /// # Errors
    /// [`Error::NoPartitions`] when the cluster was not made for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), nats_service_testkit::Error> {
    /// use nats_service_testkit::TestCluster;
    ///
    /// let cluster = TestCluster::builder().partitions(true).start().await?;
    /// let follower = (cluster.meta_leader().await? + 1) % 3;
    /// cluster.hold_back(follower).await?;
    /// cluster.rejoin(follower).await?;
    /// cluster.wait_ready().await?;
    /// # Ok(()) }
    /// ```
    pub async fn hold_back(&self, index: usize) -> Result<(), Error> {
        for proxy in self.links_of(index, true)? {
            proxy.hush().await?;
        }
        Ok(())
    }

    /// Lets a server that was [cut off](Self::cut_off) or [held back](Self::hold_back) find the others again.
    ///
    /// # Errors
    /// [`Error::NoPartitions`] when the cluster was not made for it.
    pub async fn rejoin(&self, index: usize) -> Result<(), Error> {
        for proxy in self.links_of(index, false)? {
            proxy.pass().await?;
        }
        Ok(())
    }

    fn links_of(&self, index: usize, cut: bool) -> Result<impl Iterator<Item = &Proxy>, Error> {
        let links = self.links.as_ref().ok_or(Error::NoPartitions)?;
        if let Some(flag) = links.cut.get(index) {
            flag.store(cut, Ordering::SeqCst);
        }
        // Two that are cut off do not find each other when one of them comes back.
        let stays_cut = move |server: usize| server != index && links.is_cut(server);
        let of_this = links.proxies.iter().filter(move |(from, to, _)| {
            (*from == index || *to == index) && !stays_cut(*from) && !stays_cut(*to)
        });
        Ok(of_this.map(|(.., proxy)| proxy))
    }

    /// Whether it runs, and the others can hear it.
    fn counts(&self, index: usize) -> bool {
        let cut = self.links.as_ref().is_some_and(|links| links.is_cut(index));
        self.servers[index].is_up() && !cut
    }

    /// Waits until the servers that run (and are neither paused nor cut off) have a leader among them and are all its current peers.
    ///
    /// # Errors
    /// [`Error::Timeout`], also when too few run to elect one.
    pub async fn wait_ready(&self) -> Result<(), Error> {
        self.wait("the cluster's servers to be current", async || {
            let views = self.views("/jsz").await;
            let leader = self.agreed(&views, |view| view["meta_cluster"]["leader"].as_str())?;
            let known = &views[leader].as_ref()?["meta_cluster"]["replicas"];
            let current = |server: &TestServer| {
                let mut replicas = known.as_array().into_iter().flatten();
                let replica = replicas.find(|replica| replica["name"] == server.name());
                replica
                    .is_some_and(|replica| replica["current"] == true && replica["offline"] != true)
            };
            for (index, server) in self.servers.iter().enumerate() {
                // A server's own word covers its streams too.
                if self.counts(index)
                    && ((index != leader && !current(server))
                        || server.monitor("/healthz").await.is_none())
                {
                    return None;
                }
            }
            Some(())
        })
        .await
    }

    /// The index of the server that leads the cluster's JetStream. Waits while there is none.
    ///
    /// # Errors
    /// [`Error::Timeout`] when none is elected.
    pub async fn meta_leader(&self) -> Result<usize, Error> {
        self.wait("a leader of the cluster", async || {
            let views = self.views("/jsz").await;
            self.agreed(&views, |view| view["meta_cluster"]["leader"].as_str())
        })
        .await
    }

    /// The index of the server that leads a stream, such as `KV_profiles` for a bucket. Waits while there is none.
    ///
    /// # Errors
    /// [`Error::Timeout`] when none is elected, or when there is no such stream.
    pub async fn stream_leader(&self, stream: &str) -> Result<usize, Error> {
        self.wait("a leader of the stream", async || {
            let views = self.views("/jsz?streams=true&accounts=true").await;
            self.agreed(&views, |view| {
                let accounts = view["account_details"].as_array()?;
                let mut streams = accounts
                    .iter()
                    .filter_map(|account| account["stream_detail"].as_array())
                    .flatten();
                streams.find(|detail| detail["name"] == stream)?["cluster"]["leader"].as_str()
            })
        })
        .await
    }

    /// What each server says; none for one that is down or silent.
    async fn views(&self, path: &str) -> Vec<Option<Value>> {
        let mut views = Vec::with_capacity(self.servers.len());
        for (index, server) in self.servers.iter().enumerate() {
            views.push(if self.counts(index) {
                server.monitor(path).await
            } else {
                None
            });
        }
        views
    }

    /// The server that calls itself the leader, when nobody else who runs names another.
    ///
    /// A leader that was cut off or paused may still think it leads; the others know better.
    fn agreed<'v>(
        &self,
        views: &'v [Option<Value>],
        leader: impl Fn(&'v Value) -> Option<&'v str>,
    ) -> Option<usize> {
        let mut named = views.iter().map(|view| {
            view.as_ref()
                .and_then(&leader)
                .filter(|name| !name.is_empty())
        });
        let name = named.clone().flatten().next()?;
        if !named.clone().flatten().all(|other| other == name) {
            return None;
        }
        let index = self
            .servers
            .iter()
            .position(|server| server.name() == name)?;
        (named.nth(index)? == Some(name)).then_some(index)
    }

    async fn wait<T, F>(
        &self,
        waiting_for: &'static str,
        mut probe: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Option<T>>,
    {
        let waited = wait_until(waiting_for, self.deadline, || {
            let probing = probe();
            async { Ok(probing.await) }
        });
        waited
            .await
            .map_err(|error| error.with_log(|| self.log_tails()))
    }

    fn log_tails(&self) -> String {
        let tails = self
            .servers
            .iter()
            .map(|server| format!("[{}]\n{}", server.name(), server.log_tail()));
        tails.collect::<Vec<_>>().join("\n")
    }
}
