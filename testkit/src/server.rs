//! One server, from its start to the removal of its files.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::Error;
use crate::builder::TestServerBuilder;
use crate::port::Port;
use crate::process::{Launch, Process};
use crate::protocol::{self, Answer};
use crate::wait::wait_until;

const TAIL_LINES: usize = 20;

/// A private nats-server on a loopback port, with JetStream in a temporary directory.
///
/// It lives as long as this value: dropping it kills the process and removes the directory, on a panic too, and without a
/// runtime. If the owning process is killed, or aborts, the server and the directory go as well.
///
/// All methods take `&self`, so that the tasks of a test can share it. They return when the condition that they name
/// has come about. One that changes the server's state waits for those before it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nats_service_testkit::TestServer;
///
/// let server = TestServer::start().await?;
/// let client = async_nats::connect(server.url()).await?;
///
/// server.kill().await?;       // SIGKILL: what was stored stays
/// server.restart().await?;    // the same port, the same store
/// # drop(client);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TestServer {
    url: String,
    name: String,
    version: String,
    ask_jetstream: bool,
    deadline: Duration,
    port: Port,
    monitor: Port,
    store_dir: PathBuf,
    launch: Launch,
    process: Mutex<Process>,
    /// Held by whatever changes the state, so that a restart and a kill do not meet half-way.
    turn: tokio::sync::Mutex<()>,
    dir: Option<TempDir>,
}

/// What the builder has put together.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) ask_jetstream: bool,
    pub(crate) deadline: Duration,
    pub(crate) port: Port,
    pub(crate) monitor: Port,
    pub(crate) store_dir: PathBuf,
    pub(crate) launch: Launch,
    pub(crate) process: Process,
    pub(crate) dir: TempDir,
}

impl TestServer {
    /// Starts a server with the defaults: a free port, JetStream on, everything temporary.
    ///
    /// # Errors
    /// See [`TestServerBuilder::start`].
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// The options of a server.
    #[must_use]
    pub fn builder() -> TestServerBuilder {
        TestServerBuilder::new()
    }

    /// `nats://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port for clients, the same across restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port of the server's HTTP monitoring (`/varz`, `/jsz`, `/healthz`), the same across restarts.
    #[must_use]
    pub fn monitor_port(&self) -> u16 {
        self.monitor.number()
    }

    /// The server's name, as clients see it in `INFO`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id; none while no process runs. A paused process runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process().id()
    }

    /// The server's version, such as `2.15.1`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The directory of JetStream's files.
    #[must_use]
    pub fn store_dir(&self) -> &Path {
        &self.store_dir
    }

    /// What the server has logged, over all its starts; for the report of a failed test.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.launch.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the process with SIGKILL, as a crash would, and waits for its end. The store stays. Nothing happens when it does not run.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the operating system does not end it.
    pub async fn kill(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.signal(Signal::KILL)?;
        self.ended().await
    }

    /// Ends the process in an orderly way (SIGTERM) and waits for its end. A paused one is resumed for it. Nothing happens when it does not run.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it does not end.
    pub async fn stop(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.stop_in_turn().await
    }

    /// Freezes the process with SIGSTOP and waits until it stands still: connections stay open, and nothing is answered.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn pause(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.signal_running(Signal::STOP)?;
        self.wait("the server to stand still", async || {
            self.still_running()?;
            let stopped = self
                .process()
                .is_stopped()
                .map_err(Error::io("ask for the server's state"))?;
            Ok(stopped.then_some(()))
        })
        .await
    }

    /// Lets a paused process go on (SIGCONT), and waits until it answers.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn resume(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.signal_running(Signal::CONT)?;
        self.ready().await
    }

    /// Starts the process again on the same port and store, and waits until it answers. One that runs is stopped first.
    ///
    /// # Errors
    /// [`Error::Exited`] with the server's log, when it does not stay.
    pub async fn restart(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.stop_in_turn().await?;
        self.process()
            .start(&self.launch)
            .map_err(Error::io("start nats-server"))?;
        self.ready().await
    }

    /// Puts the server into lame duck mode (SIGUSR2), and waits until it accepts no more clients.
    ///
    /// It tells those that it has, lets them go one after the other within 30 seconds, and ends: see
    /// [`wait_for_exit`](Self::wait_for_exit).
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn lame_duck(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.signal_running(Signal::USR2)?;
        self.wait("the server to refuse clients", async || {
            Ok((!protocol::accepts(self.port()).await).then_some(()))
        })
        .await
    }

    /// Waits until the process has ended, by itself or by somebody else's hand.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn wait_for_exit(&self) -> Result<(), Error> {
        self.ended().await
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            url: format!("nats://127.0.0.1:{}", parts.port.number()),
            name: parts.name,
            version: parts.version,
            ask_jetstream: parts.ask_jetstream,
            deadline: parts.deadline,
            port: parts.port,
            monitor: parts.monitor,
            store_dir: parts.store_dir,
            launch: parts.launch,
            process: Mutex::new(parts.process),
            turn: tokio::sync::Mutex::new(()),
            dir: Some(parts.dir),
        }
    }

    /// Waits until the server answers; with JetStream on, until that does.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        self.wait("the server to answer", async || {
            self.still_running()?;
            match protocol::greet(self.port(), &self.name, self.ask_jetstream).await {
                Ok(Answer::Ready) => Ok(Some(())),
                // Not for a client without credentials to see; the server says so itself.
                Ok(Answer::Reserved) => Ok(self.monitor("/healthz").await.map(drop)),
                Ok(Answer::Other) | Err(_) => Ok(None),
            }
        })
        .await
    }

    /// What the monitoring port says; none while it does not.
    pub(crate) async fn monitor(&self, path: &str) -> Option<serde_json::Value> {
        protocol::monitor(self.monitor_port(), path)
            .await
            .ok()
            .flatten()
    }

    /// Whether it runs and is not paused.
    pub(crate) fn is_up(&self) -> bool {
        let mut process = self.process();
        process.id().is_some() && !process.is_paused()
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    async fn stop_in_turn(&self) -> Result<(), Error> {
        if self.signal(Signal::TERM)? {
            self.signal(Signal::CONT)?;
        }
        self.ended().await
    }

    async fn ended(&self) -> Result<(), Error> {
        self.wait("the server to end", async || {
            Ok(self.pid().is_none().then_some(()))
        })
        .await
    }

    fn still_running(&self) -> Result<(), Error> {
        match self.process().exit() {
            Some(status) => Err(Error::Exited {
                status,
                log: self.log_tail(),
            }),
            None => Ok(()),
        }
    }

    /// False when it does not run.
    fn signal(&self, signal: Signal) -> Result<bool, Error> {
        self.process()
            .signal(signal)
            .map_err(Error::io("signal the server"))
    }

    fn signal_running(&self, signal: Signal) -> Result<(), Error> {
        if self.signal(signal)? {
            Ok(())
        } else {
            Err(Error::NotRunning)
        }
    }

    async fn wait<F>(
        &self,
        waiting_for: &'static str,
        probe: impl FnMut() -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<Option<()>, Error>>,
    {
        wait_until(waiting_for, self.deadline, probe)
            .await
            .map_err(|error| error.with_log(|| self.log_tail()))
    }

    /// Never held across an await, and nothing panics while it is held.
    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let dir = self.dir.take();
        self.process().end(|| dir.map_or(Ok(()), TempDir::close));
    }
}
