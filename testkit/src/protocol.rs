//! The few lines of NATS and HTTP that are needed to ask a server whether it is there.
//!
//! No client library: users bring their own, of whatever version.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one question may take before it is asked anew: a paused server accepts connections and says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a server said to a client without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answered everything that was asked.
    Ready,
    /// It is there, but wants credentials or TLS, or has no JetStream for this client: ask by HTTP.
    Reserved,
    /// It is there, but not (yet) the server that was meant.
    Other,
}

/// Greets the server of this name, and asks it for JetStream's account information.
pub(crate) async fn greet(port: u16, name: &str, jetstream: bool) -> io::Result<Answer> {
    timeout(PATIENCE, converse(port, name, jetstream)).await?
}

/// Whether anything accepts connections on the port.
pub(crate) async fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .is_ok()
}

async fn converse(port: u16, name: &str, jetstream: bool) -> io::Result<Answer> {
    let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    let info = line(&mut stream).await?;
    let Some(info) = info.strip_prefix("INFO ") else {
        return Ok(Answer::Other);
    };
    let info: serde_json::Value = serde_json::from_str(info)?;
    if info["server_name"] != name {
        return Ok(Answer::Other);
    }
    if info["tls_required"] == true {
        return Ok(Answer::Reserved);
    }
    let connect = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"rust","name":"nats-service-testkit","version":""}"#;
    stream
        .write_all(format!("{connect}\r\nPING\r\n").as_bytes())
        .await?;
    loop {
        match line(&mut stream).await?.as_str() {
            "PONG" => break,
            refusal if refusal.starts_with("-ERR") => return Ok(Answer::Reserved),
            _ => {}
        }
    }
    if !jetstream {
        return Ok(Answer::Ready);
    }
    // The connection is ours alone and asks once, so the inbox need not be unique.
    stream
        .write_all(b"SUB _INBOX.testkit 1\r\nPUB $JS.API.INFO _INBOX.testkit 0\r\n\r\n")
        .await?;
    loop {
        let control = line(&mut stream).await?;
        if control.starts_with("MSG ") {
            let answer: serde_json::Value = serde_json::from_str(&line(&mut stream).await?)?;
            return Ok(if answer["error"].is_null() {
                Answer::Ready
            } else {
                Answer::Reserved
            });
        }
        if control.starts_with("HMSG ") || control.starts_with("-ERR") {
            return Ok(Answer::Reserved);
        }
        if control == "PING" {
            stream.write_all(b"PONG\r\n").await?;
        }
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}

/// The JSON that the monitoring port answers with status 200; none for any other status.
pub(crate) async fn monitor(port: u16, path: &str) -> io::Result<Option<serde_json::Value>> {
    timeout(PATIENCE, get(port, path)).await?
}

async fn get(port: u16, path: &str) -> io::Result<Option<serde_json::Value>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    // HTTP/1.0, so that the body ends with the connection and never comes in chunks.
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
        .await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let Some((head, body)) = response.split_once("\r\n\r\n") else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if head.split(' ').nth(1) != Some("200") {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(body)?))
}
