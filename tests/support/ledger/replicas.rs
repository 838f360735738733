//! What each server has of the bucket, by its own word: whether something is lost, or only missing on one of them.

use crate::PATIENCE;
use nats_service_testkit::{TestCluster, TestServer};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Waits until every server has the same.
///
/// # Errors
/// With what each of them has, when they do not come to that.
pub(super) async fn alike(cluster: &TestCluster) -> Result<(), Vec<String>> {
    let since = Instant::now();
    loop {
        let mut states = Vec::new();
        for server in cluster.servers() {
            states.push(state(server).await);
        }
        if states.iter().all(|state| *state == states[0]) {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            let told = cluster.servers().iter().zip(states);
            return Err(told
                .map(|(server, state)| format!("{} has {state:?}", server.name()))
                .collect());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// First, last, how many.
async fn state(server: &TestServer) -> Option<[u64; 3]> {
    let told = monitor(server.monitor_port()).await?;
    let stream = &told["account_details"][0]["stream_detail"][0]["state"];
    let number = |name: &str| stream[name].as_u64();
    Some([
        number("first_seq")?,
        number("last_seq")?,
        number("messages")?,
    ])
}

async fn monitor(port: u16) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = b"GET /jsz?streams=true&accounts=true HTTP/1.0\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// Keeps what the servers have logged, for they take it along when they go: where it is.
///
/// # Panics
/// When it cannot be written.
pub(super) fn keep_logs(cluster: &TestCluster) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ledger-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    for server in cluster.servers() {
        let log = dir.join(server.name()).with_extension("log");
        std::fs::write(log, server.log()).expect("a log");
    }
    dir
}
