//! A network that can be lost: a small TCP proxy between a client and a server.
//!
//! It loses connections and bytes, not parts of them: no delay, no reordering, no limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::Error;
use crate::port::Port;

const BUFFER: usize = 16 * 1024;

/// A TCP proxy on a loopback port, whose connections can be cut or stalled.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nats_service_testkit::{Proxy, TestServer};
///
/// let server = TestServer::start().await?;
/// let proxy = Proxy::start(server.url()).await?;
/// let client = async_nats::connect(proxy.url()).await?;
///
/// proxy.cut().await?;     // as if the cable was pulled, and everybody noticed
/// proxy.pass().await?;
/// proxy.stall().await?;   // as if the cable was pulled, and nobody has noticed yet
/// proxy.pass().await?;    // what was under way arrives
/// # drop(client);
/// # Ok(()) }
/// ```
///
/// A server of a cluster tells clients of its peers, past the proxy: see
/// [`TestClusterBuilder::advertise`](crate::TestClusterBuilder::advertise).
#[derive(Debug)]
pub struct Proxy {
    url: String,
    port: u16,
    orders: mpsc::UnboundedSender<(Mode, oneshot::Sender<Result<(), Error>>)>,
    task: AbortHandle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Stall,
    /// Stalls what servers of a cluster say to each other for themselves, and passes what they carry for clients.
    Hush,
    Cut,
}

/// By which a server says that a route is for this one account: the system's, by which the servers agree on what is stored.
const OF_SYSTEM: &[u8] = br#""route_account":"$SYS""#;
/// It is said among the first bytes of a connection.
const SAID_WITHIN: usize = BUFFER;

impl Proxy {
    /// Starts a proxy to `nats://host:port` or `host:port`, which passes everything on until it is told otherwise.
    ///
    /// It works on the runtime that it is started on, and ends with this value.
    ///
    /// # Errors
    /// [`Error::Upstream`] when that is no address.
    pub async fn start(upstream: &str) -> Result<Self, Error> {
        let address = upstream
            .split_once("://")
            .map_or(upstream, |(_, address)| address)
            .trim_end_matches('/');
        let valid = address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !valid {
            return Err(Error::Upstream {
                upstream: upstream.to_owned(),
            });
        }
        let port = Port::any()?;
        let number = port.number();
        let listener = listen(number)?;
        let (orders, received) = mpsc::unbounded_channel();
        let serving = Serving {
            upstream: address.to_owned(),
            port,
            connections: JoinSet::new(),
        };
        let task = tokio::spawn(serving.run(listener, received)).abort_handle();
        Ok(Self {
            url: format!("nats://127.0.0.1:{number}"),
            port: number,
            orders,
            task,
        })
    }

    /// `nats://127.0.0.1:<port>`: what the client connects to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port that the client connects to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Drops all connections, and refuses new ones.
    ///
    /// # Errors
    /// [`Error::Io`] when the runtime that it was started on is gone.
    pub async fn cut(&self) -> Result<(), Error> {
        self.order(Mode::Cut).await
    }

    /// Keeps the connections, and takes new ones, but passes nothing on. What comes in meanwhile waits.
    ///
    /// # Errors
    /// [`Error::Io`] when it was cut before and can't listen again.
    pub async fn stall(&self) -> Result<(), Error> {
        self.order(Mode::Stall).await
    }

    /// Passes everything on, on the same port as before.
    ///
    /// # Errors
    /// [`Error::Io`] when it was cut before and can't listen again.
    pub async fn pass(&self) -> Result<(), Error> {
        self.order(Mode::Pass).await
    }

    /// Stalls what the servers on both sides agree on, where this is one of a cluster's routes; messages of clients pass.
    pub(crate) async fn hush(&self) -> Result<(), Error> {
        self.order(Mode::Hush).await
    }

    async fn order(&self, mode: Mode) -> Result<(), Error> {
        let gone = || Error::Io {
            doing: "reach the proxy's task",
            source: std::io::ErrorKind::BrokenPipe.into(),
        };
        let (done, obeyed) = oneshot::channel();
        self.orders.send((mode, done)).map_err(|_| gone())?;
        obeyed.await.map_err(|_| gone())?
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(port: u16) -> Result<TcpListener, Error> {
    let listening = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        socket.listen(1024)
    };
    listening().map_err(Error::io("listen on the proxy's port"))
}

/// Ends the listening itself: a program that is being started has copies of this process's sockets until it runs, and dropping
/// ours would leave its listening on the port.
fn close(listener: &TcpListener) {
    // Where a system refuses this, the drop is all there is.
    let _ = shutdown(listener, Shutdown::Both);
}

/// The task behind a proxy. Its connections end with it.
struct Serving {
    upstream: String,
    port: Port,
    connections: JoinSet<()>,
}

impl Serving {
    async fn run(
        mut self,
        listener: TcpListener,
        mut orders: mpsc::UnboundedReceiver<(Mode, oneshot::Sender<Result<(), Error>>)>,
    ) {
        let mut listener = Some(listener);
        let (mode, seen) = watch::channel(Mode::Pass);
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((wanted, done)) = order else { return };
                    let obeyed = self.obey(wanted, &mode, &mut listener).await;
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(obeyed);
                }
                accepted = accept(listener.as_ref()) => {
                    if let Ok(client) = accepted {
                        self.connections.spawn(connect(client, self.upstream.clone(), seen.clone()));
                    }
                }
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn obey(
        &mut self,
        wanted: Mode,
        mode: &watch::Sender<Mode>,
        listener: &mut Option<TcpListener>,
    ) -> Result<(), Error> {
        if wanted == Mode::Cut {
            if let Some(listener) = listener.take() {
                close(&listener);
            }
            self.connections.shutdown().await;
        } else if listener.is_none() {
            *listener = Some(listen(self.port.number())?);
        }
        mode.send_replace(wanted);
        Ok(())
    }
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// One connection; its end, for whatever reason, is the end of both sides.
async fn connect(client: TcpStream, upstream: String, mode: watch::Receiver<Mode>) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let of_system = AtomicBool::new(false);
    tokio::select! {
        _ = forward(from_client, to_server, mode.clone(), &of_system) => {}
        _ = forward(from_server, to_client, mode, &of_system) => {}
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    of_system: &AtomicBool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut said = Vec::new();
    loop {
        let length = from.read(&mut buffer).await?;
        if said.len() < SAID_WITHIN {
            said.extend_from_slice(&buffer[..length]);
            if said.windows(OF_SYSTEM.len()).any(|it| it == OF_SYSTEM) {
                of_system.store(true, Ordering::SeqCst);
            }
        }
        // After the read, so that what came in while stalled waits here. The end of a connection waits as well: when the
        // network is lost, nobody hears of it.
        let passes = |mode: &Mode| match mode {
            Mode::Pass => true,
            Mode::Hush => !of_system.load(Ordering::SeqCst),
            Mode::Stall | Mode::Cut => false,
        };
        if mode.wait_for(passes).await.is_err() || length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_cut_port_refuses_and_can_be_had_again_whoever_holds_a_copy_of_its_socket() {
        let port = Port::any().unwrap();
        let listener = listen(port.number()).unwrap();
        let copy = listener.as_fd().try_clone_to_owned().unwrap();
        close(&listener);
        drop(listener);
        let address = (Ipv4Addr::LOCALHOST, port.number());
        assert!(TcpStream::connect(address).await.is_err());
        let again = listen(port.number()).unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), again.accept());
        assert!(client.is_ok() && server.is_ok());
        drop(copy);
    }
}
