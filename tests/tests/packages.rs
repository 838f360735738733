//! What `cargo add nats-service` brings along, and which Rust it asks for.

use nats_service_tests::workspace;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};

fn cargo(arguments: &[&str]) -> String {
    String::from_utf8(output(arguments).stdout).expect("text")
}

/// What cargo says to the terminal, when it succeeds.
fn run(arguments: &[&str]) -> String {
    String::from_utf8(output(arguments).stderr).expect("text")
}

fn output(arguments: &[&str]) -> Output {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cargo {arguments:?} failed:\n{err}"
    );
    output
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

/// The packages that a package is built with on Linux.
fn tree(package: &str, more: &[&str]) -> BTreeSet<String> {
    let mut arguments = vec!["tree", "--locked", "-e", "normal", "--prefix", "none"];
    arguments.extend(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}"]);
    arguments.extend(["-p", package]);
    arguments.extend(more);
    let tree = cargo(&arguments);
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn default_features_bring_little_more_than_async_nats_does() {
    let (ours, theirs) = (tree("nats-service", &[]), tree("async-nats", &[]));
    let more: Vec<&str> = ours.difference(&theirs).map(String::as_str).collect();
    assert_eq!(more, ["nats-service", "nats-service-macros"]);
}

#[test]
fn the_list_of_dependencies_is_the_one_that_cargo_has() {
    let file = workspace().join("docs/DEPENDENCIES.md");
    let text = std::fs::read_to_string(file).expect("the list");
    let (always, optional) = text.split_once("## Optional").expect("two parts");
    let cell = |row: &str, number: usize| row.split('|').nth(number).unwrap_or_default().to_owned();
    let quoted = |text: &str| {
        text.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let rows = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        rows.map(str::to_owned).collect()
    };
    let listed: BTreeSet<String> = rows(always)
        .iter()
        .flat_map(|row| -> BTreeSet<String> { quoted(&cell(row, 1)) })
        .collect();
    let mut built = tree("nats-service", &[]);
    built.remove("nats-service");
    assert_eq!(listed, built);
    for row in rows(always) {
        assert!(!cell(&row, 2).trim().is_empty(), "no reason: {row}");
    }

    let mut features = BTreeSet::from(["default".to_owned()]);
    for row in rows(optional) {
        let names: BTreeSet<String> = quoted(&cell(&row, 1));
        let feature = names.first().expect("a name").clone();
        let with = tree("nats-service", &["--features", &feature]);
        let more: BTreeSet<String> = with
            .difference(&tree("nats-service", &[]))
            .cloned()
            .collect();
        assert_eq!(quoted(&cell(&row, 2)), more, "{feature}");
        features.insert(feature);
    }
    assert_eq!(features, all_features());
}

/// The features of `nats-service`, by its manifest.
fn all_features() -> BTreeSet<String> {
    let metadata = cargo(&["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours = packages
        .iter()
        .find(|package| package["name"] == "nats-service");
    let features = ours.expect("listed")["features"].as_object();
    features.expect("features").keys().cloned().collect()
}

/// What `cargo hack check --each-feature` does, without another tool to install; and besides, all features but one, since what
/// only works together with another shows itself there as well.
#[test]
fn features_build_alone_and_together_without_a_warning() {
    let all = all_features();
    let all: Vec<&String> = all.iter().filter(|name| *name != "default").collect();
    let joined = |names: &[&String]| {
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        names.join(",")
    };
    let mut sets = vec![String::new()];
    for (i, one) in all.iter().enumerate() {
        sets.push((*one).clone());
        let mut others = all.clone();
        others.remove(i);
        sets.push(joined(&others));
    }
    sets.push(joined(&all));
    for features in &sets {
        let mut arguments = vec!["check", "--locked", "--quiet", "-p", "nats-service"];
        arguments.extend(["--no-default-features", "--features", features]);
        let said = run(&arguments);
        assert_eq!(said, "", "--features {features:?}");
    }
}
