//! The README is true: its trait compiles in a crate outside this workspace that depends on `nats-service` alone, and its
//! story runs there.

use nats_service_tests::workspace;
use std::path::Path;
use std::process::Command;

/// The README's Rust blocks: the trait, its implementation, the story. Lines hidden by `# ` are shown.
fn blocks() -> [String; 3] {
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("the README");
    let blocks: Vec<String> = readme
        .split("```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(|block| {
            block
                .lines()
                .map(|line| line.strip_prefix("# ").unwrap_or(line))
                .collect::<Vec<_>>()
                .join("\n")
        })
        .collect();
    blocks.try_into().expect("three Rust blocks")
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

/// A workspace of its own, outside this one, with our lock file so that nothing newer is looked for.
fn outside() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let root = workspace();
    let at = |crate_: &str| root.join(crate_).display().to_string();
    let package = |name: &str| {
        format!(
            "[package]\nname = \"{name}\"\nversion = \"1.2.3\"\nedition = \"2024\"\n\n[dependencies]\n"
        )
    };
    let service = format!("nats-service = {{ path = {:?} }}\n", at("core"));
    let more = format!(
        "nats-service-testkit = {{ path = {:?}, features = [\"install\"] }}\nfutures-util = \"0.3\"\ntokio = {{ version = \"1\", features = [\"rt-multi-thread\", \"macros\"] }}\n",
        at("testkit")
    );
    let [contract, implementation, story] = blocks();
    let path = folder.path();
    write(
        &path.join("Cargo.toml"),
        "[workspace]\nresolver = \"3\"\nmembers = [\"alone\", \"story\"]\n",
    );
    write(
        &path.join("alone/Cargo.toml"),
        &format!("{}{service}", package("alone")),
    );
    write(&path.join("alone/src/lib.rs"), &contract);
    write(
        &path.join("story/Cargo.toml"),
        &format!("{}{service}{more}", package("story")),
    );
    write(
        &path.join("story/src/main.rs"),
        &[contract, implementation, story].join("\n"),
    );
    std::fs::copy(root.join("Cargo.lock"), path.join("Cargo.lock")).expect("the lock file");
    folder
}

fn cargo(folder: &Path, arguments: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .arg("--offline")
        .current_dir(folder)
        // A place of its own: the outer build must not be disturbed, and the next run finds the dependencies built.
        .env("CARGO_TARGET_DIR", workspace().join("target/outside"))
        .output()
        .expect("cargo runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "cargo {arguments:?} failed:\n{out}\n{err}"
    );
}

#[test]
fn the_readme_compiles_and_runs_outside_the_workspace() {
    let folder = outside();
    cargo(folder.path(), &["check", "-p", "alone"]);
    cargo(folder.path(), &["run", "-p", "story"]);
}
