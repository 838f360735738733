//! What a server shall be like, before it is started.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::Error;
use crate::find::{Environment, Found, find};
use crate::port::Port;
use crate::process::{Launch, Process};
use crate::server::TestServer;

/// Long enough for a busy build machine; what is ready is seen at once.
const DEADLINE: Duration = Duration::from_secs(60);

/// How many ports to try where a port can't be held for the server.
const PORT_ATTEMPTS: usize = 5;

/// The options of a [`TestServer`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nats_service_testkit::Error> {
/// use nats_service_testkit::TestServer;
///
/// let server = TestServer::builder()
///     .max_payload(64 * 1024)
///     .config("authorization { user: alice, password: secret }")
///     .start()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct TestServerBuilder {
    version: Option<String>,
    port: Option<u16>,
    config: String,
    max_payload: Option<usize>,
    jetstream: bool,
    store_dir: Option<PathBuf>,
    environment: Option<Environment>,
    deadline: Duration,
    name: String,
    cluster: Option<Membership>,
}

/// What makes a server one of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) cluster: String,
    pub(crate) port: u16,
    pub(crate) routes: String,
    pub(crate) advertise: bool,
    /// Where the other servers are told to find this one; `None` for where it is.
    pub(crate) route_advertise: Option<u16>,
}

impl TestServerBuilder {
    pub(crate) fn new() -> Self {
        Self {
            version: None,
            port: None,
            config: String::new(),
            max_payload: None,
            jetstream: true,
            store_dir: None,
            environment: None,
            deadline: DEADLINE,
            name: unique_name(),
            cluster: None,
        }
    }

    /// This version of nats-server and no other, such as `"2.12.8"`; at least [`OLDEST_VERSION`](crate::OLDEST_VERSION).
    ///
    /// Without it, the one that `NATS_SERVER_VERSION` says. Without that, any server that is found and not too old will do, or else
    /// [`DEFAULT_VERSION`](crate::DEFAULT_VERSION) is installed.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// This port for clients. Without it, a free one; either stays the same across restarts.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Lines for the server's configuration file, in its own syntax. Several calls add up.
    ///
    /// For what this builder has no method for: accounts, permissions, TLS, limits. Addresses, ports, the server's name and
    /// the store's directory are given on the command line and are not to be set here.
    #[must_use]
    pub fn config(mut self, lines: impl AsRef<str>) -> Self {
        self.config.push_str(lines.as_ref());
        self.config.push('\n');
        self
    }

    /// The largest message that the server accepts, in bytes, headers included. The server's default is 1 MiB.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = Some(bytes);
        self
    }

    /// Whether JetStream is on. It is, by default.
    #[must_use]
    pub fn jetstream(mut self, on: bool) -> Self {
        self.jetstream = on;
        self
    }

    /// A directory of yours for JetStream's files, which stays when the server goes. Without it, a temporary one.
    #[must_use]
    pub fn store_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.store_dir = Some(dir.into());
        self
    }

    /// Where to look for a nats-server, instead of what the process's environment says.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// How long to wait at most for any one condition: to be ready, to have ended. 60 seconds by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts the server, and returns when it answers.
    ///
    /// # Errors
    /// [`Error::NoServer`] lists the ways to get one; [`Error::Exited`] says what the server did not like.
    pub async fn start(self) -> Result<TestServer, Error> {
        let found = self.find().await?;
        let mut attempts = 1..=PORT_ATTEMPTS;
        loop {
            let started = match self.clone().launch(found.clone()) {
                Ok(server) => server.ready().await.map(|()| server),
                Err(error) => Err(error),
            };
            match started {
                Err(Error::Exited { log, .. })
                    if self.port.is_none()
                        && log.contains("address already in use")
                        && attempts.next().is_some() => {}
                result => return result,
            }
        }
    }

    pub(crate) fn named(mut self, name: String, membership: Membership) -> Self {
        self.name = name;
        self.cluster = Some(membership);
        self
    }

    pub(crate) fn limit(&self) -> Duration {
        self.deadline
    }

    /// Looks for the program off the runtime's threads, for it may take an installation.
    pub(crate) async fn find(&self) -> Result<Found, Error> {
        let environment = self
            .environment
            .clone()
            .unwrap_or_else(Environment::of_process);
        let version = self.version.clone();
        let looking = tokio::task::spawn_blocking(move || find(&environment, version.as_deref()));
        looking.await.map_err(|error| Error::Io {
            doing: "look for nats-server",
            source: error.into(),
        })?
    }

    /// Starts the process without waiting for its answers.
    pub(crate) fn launch(self, found: Found) -> Result<TestServer, Error> {
        let port = self.port.map_or_else(Port::any, Port::exactly)?;
        let monitor = Port::any()?;
        let dir = tempfile::Builder::new()
            .prefix("nats-service-testkit-")
            .tempdir()
            .map_err(Error::io("make a directory for the server"))?;
        let mut process =
            Process::guarding(dir.path()).map_err(Error::io("start the server's watchdog"))?;

        let config = dir.path().join("server.conf");
        std::fs::write(&config, self.config_file())
            .map_err(Error::io("write the server's configuration"))?;
        let store_dir = self
            .store_dir
            .clone()
            .unwrap_or_else(|| dir.path().join("store"));
        let launch = Launch {
            program: found.program,
            args: self.args(config, &port, &monitor, &store_dir),
            log: dir.path().join("server.log"),
        };
        process
            .start(&launch)
            .map_err(Error::io("start nats-server"))?;
        Ok(TestServer::new(crate::server::Parts {
            name: self.name,
            version: found.version,
            // In a cluster JetStream answers when there is a leader, which is for the cluster to wait for.
            ask_jetstream: self.jetstream && self.cluster.is_none(),
            deadline: self.deadline,
            port,
            monitor,
            store_dir,
            launch,
            process,
            dir,
        }))
    }

    /// What is fixed goes on the command line, where the user's lines can't change it.
    fn args(
        &self,
        config: PathBuf,
        port: &Port,
        monitor: &Port,
        store_dir: &std::path::Path,
    ) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["-c".into(), config.into()];
        let mut flag = |name: &str, value: OsString| args.extend([name.into(), value]);
        flag("-a", "127.0.0.1".into());
        flag("-p", port.number().to_string().into());
        flag("-m", monitor.number().to_string().into());
        flag("-n", self.name.clone().into());
        if let Some(member) = &self.cluster {
            flag("--cluster_name", member.cluster.clone().into());
            flag(
                "--cluster",
                format!("nats://127.0.0.1:{}", member.port).into(),
            );
            flag("--routes", member.routes.clone().into());
            if let Some(port) = member.route_advertise {
                flag("--cluster_advertise", format!("127.0.0.1:{port}").into());
            }
            if !member.advertise {
                args.push("--no_advertise".into());
            }
        }
        if self.jetstream {
            args.extend(["-js".into(), "-sd".into(), store_dir.into()]);
        }
        args
    }

    fn config_file(&self) -> String {
        // The shortest that the server allows: by default a lame duck takes two minutes to leave.
        let mut text =
            "lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"100ms\"\n".to_owned();
        if let Some(bytes) = self.max_payload {
            text.push_str(&format!("max_payload: {bytes}\n"));
        }
        text + &self.config
    }
}

/// Names tell servers apart where a port might have changed hands.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "testkit-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
