//! A nats-server of our own, until the test kit has one: `NATS_SERVER_BIN`, or the one on the path.

use crate::Result;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Killed on drop, and its folder removed.
#[derive(Debug)]
pub(crate) struct TestServer {
    url: String,
    _child: Child,
    _folder: TempDir,
}

impl TestServer {
    pub(crate) async fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let binary = std::env::var("NATS_SERVER_BIN").unwrap_or_else(|_| "nats-server".to_owned());
        let child = Command::new(&binary)
            .args(["-a", "127.0.0.1", "-js", "-p", &port.to_string(), "-sd"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{binary}: {error}"))?;
        for _ in 0..500 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(Self {
                    url: format!("nats://127.0.0.1:{port}"),
                    _child: child,
                    _folder: folder,
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("the server does not listen".into())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}
