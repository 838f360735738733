//! Nothing is left behind, however the owner ends.

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{is_alive, until};
use nats_service_testkit::TestServer;

/// The directory that the server has to itself.
fn directory(server: &TestServer) -> PathBuf {
    server
        .store_dir()
        .parent()
        .expect("the store is in the server's directory")
        .to_owned()
}

async fn gone(pid: u32, dir: &Path) {
    until("the server's end", async || !is_alive(pid)).await;
    until("the removal of its directory", async || !dir.exists()).await;
}

#[tokio::test]
async fn a_drop_ends_it_and_removes_its_files() {
    let server = TestServer::start().await.unwrap();
    let (pid, dir) = (server.pid().unwrap(), directory(&server));
    assert!(is_alive(pid) && dir.is_dir());
    drop(server);
    assert!(
        !is_alive(pid) && !dir.exists(),
        "both are gone when drop returns"
    );
}

#[tokio::test]
async fn a_drop_ends_a_paused_one() {
    let server = TestServer::start().await.unwrap();
    let (pid, dir) = (server.pid().unwrap(), directory(&server));
    server.pause().await.unwrap();
    drop(server);
    assert!(!is_alive(pid) && !dir.exists());
}

#[test]
fn a_drop_needs_no_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(TestServer::start()).unwrap();
    drop(runtime);
    let pid = server.pid().unwrap();
    drop(server);
    assert!(!is_alive(pid));
}

#[test]
fn a_panicking_owner_takes_it_along() {
    let (tell, told) = std::sync::mpsc::channel();
    let owner = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = TestServer::start().await.unwrap();
            tell.send((server.pid().unwrap(), directory(&server)))
                .unwrap();
            panic!("on purpose");
        });
    });
    assert!(owner.join().is_err());
    let (pid, dir) = told.recv().unwrap();
    assert!(!is_alive(pid) && !dir.exists());
}

#[tokio::test]
async fn a_killed_owner_takes_it_along() {
    let (mut owner, servers) = spawn_owner("hold");
    owner.kill().unwrap();
    owner.wait().unwrap();
    for (pid, dir) in servers {
        gone(pid, &dir).await;
    }
}

#[tokio::test]
async fn an_aborting_owner_takes_it_along() {
    let (mut owner, servers) = spawn_owner("abort");
    owner.wait().unwrap();
    for (pid, dir) in servers {
        gone(pid, &dir).await;
    }
}

/// This test binary again, as the owner of a running server and a paused one.
fn spawn_owner(fate: &str) -> (Child, Vec<(u32, PathBuf)>) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner", "--ignored", "--nocapture"])
        .env("TESTKIT_OWNERS_FATE", fate)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let servers: Vec<(u32, PathBuf)> = lines
        .filter_map(|line| {
            let (pid, dir) = line
                .split_once("owns ")?
                .1
                .split_once(' ')
                .map(|(pid, dir)| (pid.to_owned(), dir.to_owned()))?;
            Some((pid.parse().unwrap(), PathBuf::from(dir)))
        })
        .take(2)
        .collect();
    assert_eq!(servers.len(), 2, "the owner has started its servers");
    (owner, servers)
}

#[test]
#[ignore = "the other tests start it, as a process of its own"]
fn owner() {
    let Ok(fate) = std::env::var("TESTKIT_OWNERS_FATE") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (one, two) = tokio::try_join!(TestServer::start(), TestServer::start()).unwrap();
        two.pause().await.unwrap();
        for server in [&one, &two] {
            println!(
                "\nowns {} {}",
                server.pid().unwrap(),
                directory(server).display()
            );
        }
        if fate == "abort" {
            std::process::abort();
        }
        // The pipe never has a line: this waits for the kill.
        std::io::stdin().read_line(&mut String::new()).unwrap();
    });
}
