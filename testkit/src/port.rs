//! Ports that stay ours, from before the server's first start until after its last.
//!
//! A port is bound, with address reuse, by a socket that never listens. On Linux the server can then bind and listen on
//! it, while nobody who asks for *any* port is given it: neither a listener, nor a client on its way to
//! somewhere. That is why a restart always gets its port back, and why a client that keeps trying to reach a killed
//! server cannot end up connected to itself.
//!
//! Elsewhere such a socket would keep the server out as well, so it is closed before the start; `TestServer` then tries
//! another port if somebody else was quicker.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

use crate::Error;

#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _held: Option<TcpSocket>,
}

impl Port {
    /// Any free port on the loopback address.
    pub(crate) fn any() -> Result<Self, Error> {
        Self::bind(0).map_err(Error::io("find a free port"))
    }

    /// This very port.
    pub(crate) fn exactly(port: u16) -> Result<Self, Error> {
        Self::bind(port).map_err(|source| Error::PortTaken { port, source })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    fn bind(port: u16) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let number = socket.local_addr()?.port();
        Ok(Self {
            number,
            _held: cfg!(target_os = "linux").then_some(socket),
        })
    }
}
