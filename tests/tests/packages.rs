//! What `cargo add nats-service` brings along, and which Rust it asks for.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn cargo(arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root)
        .output()
        .expect("cargo runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cargo {arguments:?} failed:\n{err}"
    );
    String::from_utf8(output.stdout).expect("text")
}

/// `1.89` and `1.89.0` alike.
fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<u32> = text
        .split('.')
        .map(|part| part.parse().expect("a number"))
        .collect();
    parts.resize(3, 0);
    parts
}

/// There is no older compiler to try it with on every machine; clippy's `incompatible_msrv` looks after the standard
/// library, and this after the dependencies.
#[test]
fn no_dependency_asks_for_a_newer_rust_than_we_do() {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--locked", "--format-version", "1"]))
            .expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let rust = |name: &str| {
        packages
            .iter()
            .find(|package| package["name"] == name)
            .expect("listed")["rust_version"]
            .clone()
    };
    let ours = version(rust("nats-service").as_str().expect("a version"));
    for package in packages {
        if let Some(theirs) = package["rust_version"].as_str() {
            assert!(
                version(theirs) <= ours,
                "{} asks for Rust {theirs}",
                package["name"]
            );
        }
    }
}

#[test]
fn default_features_bring_little_more_than_async_nats_does() {
    let tree = |package: &str| -> BTreeSet<String> {
        let tree = cargo(&[
            "tree",
            "--offline",
            "-e",
            "normal",
            "-p",
            package,
            "--prefix",
            "none",
            "--format",
            "{p}",
        ]);
        let names = tree.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect()
    };
    let (ours, theirs) = (tree("nats-service"), tree("async-nats"));
    let more: Vec<&str> = ours.difference(&theirs).map(String::as_str).collect();
    // The first and the last are for `view()`; without default features they do not come.
    let expected = [
        "arc-swap",
        "nats-service",
        "nats-service-macros",
        "rustversion",
    ];
    assert_eq!(more, expected);
}
