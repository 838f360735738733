//! What a service of fifty methods costs to compile, beyond one of a single method: two crates are generated, their
//! dependencies built once, and then each is edited and built again, debug, in turns: once without and once with what rustc
//! keeps from the last time.
//!
//! Both crates hold the same hundred types with serde's derives, which is not our cost. A third crate does the same fifty
//! methods by hand, in one `match`: what decoding and encoding fifty types costs whoever does it.

use super::{Plan, Row, Samples, progress, target, workspace};
use crate::Result;
use crate::report::Goal;
use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

const METHODS: usize = 50;
const SECONDS: &str = "seconds";

/// What the generated crate holds beside the types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Service { methods: usize },
    ByHand { methods: usize },
}

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Service { methods } => format!("service-{methods}"),
            Self::ByHand { methods } => format!("by-hand-{methods}"),
        }
    }
}

const MANY: Kind = Kind::Service { methods: METHODS };
const ONE: Kind = Kind::Service { methods: 1 };
const MANY_BY_HAND: Kind = Kind::ByHand { methods: METHODS };
const ONE_BY_HAND: Kind = Kind::ByHand { methods: 1 };

/// How rustc goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    /// Everything anew, as on a build machine: what the methods cost.
    Whole,
    /// What an edit does not touch is reused, as on a desk: what of that a user waits for.
    Incremental,
}

impl Mode {
    fn switch(self) -> &'static str {
        match self {
            Self::Whole => "0",
            Self::Incremental => "1",
        }
    }
}

pub(super) async fn run(plan: Plan) -> Result<Vec<Row>> {
    let folder = target().join("bench-compile");
    let kinds = [MANY_BY_HAND, ONE_BY_HAND, MANY, ONE];
    let mut samples = Samples::new();
    // The round of number nought builds the dependencies, and is not counted.
    for round in 0..=plan.rounds {
        for mode in [Mode::Whole, Mode::Incremental] {
            for kind in &kinds {
                progress(format_args!(
                    "compile: round {round}, {} {mode:?}",
                    kind.name()
                ));
                generate(&folder, *kind, round)?;
                let took = build(&folder, *kind, mode).await?;
                if round > 0 {
                    samples.add((*kind, mode), SECONDS, took.as_secs_f64());
                }
            }
        }
    }
    let row = |what: String, ours, theirs, mode, goal| {
        let figures = (
            samples.figure((ours, mode), SECONDS),
            samples.figure((theirs, mode), SECONDS),
        );
        Row::new(what, "s", figures.0, figures.1, goal)
    };
    let mut rows = Vec::new();
    for (mode, what, goal) in [
        (Mode::Whole, "debug build", Goal::ExcessAtMost(2.0)),
        (
            Mode::Incremental,
            "debug build after an edit",
            Goal::ExcessAtMost(2.0),
        ),
    ] {
        let against_one = format!("{what}: service of {METHODS} methods / of 1, less is better");
        let against_hand =
            format!("{what}: service of {METHODS} / as many by hand, less is better");
        let by_hand = format!("(not ours, for comparison) {what}: {METHODS} by hand / 1 by hand");
        rows.extend([
            row(against_one, MANY, ONE, mode, goal),
            row(against_hand, MANY, MANY_BY_HAND, mode, Goal::None),
            row(by_hand, MANY_BY_HAND, ONE_BY_HAND, mode, Goal::None),
        ]);
    }
    Ok(rows)
}

/// Writes the package; `edit` makes its text another than the last one.
fn generate(folder: &Path, kind: Kind, edit: usize) -> Result<()> {
    let package = folder.join(kind.name());
    std::fs::create_dir_all(package.join("src"))?;
    std::fs::write(package.join("src/main.rs"), program(kind, edit)?)?;
    std::fs::write(package.join("Cargo.toml"), manifest(kind)?)?;
    let lock = package.join("Cargo.lock");
    if edit == 0 {
        // The versions of the workspace, so that nothing is asked of a registry.
        std::fs::copy(workspace().join("Cargo.lock"), lock)?;
    }
    Ok(())
}

/// Builds one package, and says how long it took.
async fn build(folder: &Path, kind: Kind, mode: Mode) -> Result<Duration> {
    let started = Instant::now();
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--offline"])
        .current_dir(folder.join(kind.name()))
        // One folder for all packages, so that the dependencies are built once.
        .env(
            "CARGO_TARGET_DIR",
            folder.join(format!("target-{mode:?}").to_lowercase()),
        )
        .env("CARGO_INCREMENTAL", mode.switch())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        return Err(format!("{} does not build:\n{said}", kind.name()).into());
    }
    Ok(started.elapsed())
}

fn manifest(kind: Kind) -> Result<String> {
    let core = workspace().join("core").canonicalize()?;
    let shared = std::fs::read_to_string(workspace().join("Cargo.toml"))?;
    // The same lines as the workspace's, for what generated code of users names itself.
    let mut dependencies = String::new();
    for name in ["async-nats", "futures-util", "serde", "serde_json", "tokio"] {
        let line = shared
            .lines()
            .find(|line| line.starts_with(&format!("{name} = ")));
        let line = line.ok_or_else(|| format!("the workspace does not name {name}"))?;
        let version = line.split('"').nth(1).ok_or("no version")?;
        let features = match name {
            "serde" => r#", features = ["derive"]"#,
            "tokio" => r#", features = ["rt-multi-thread", "macros"]"#,
            "async-nats" => r#", default-features = false, features = ["ring"]"#,
            _ => "",
        };
        writeln!(
            dependencies,
            "{name} = {{ version = \"{version}\"{features} }}"
        )?;
    }
    Ok(format!(
        "[package]\nname = \"{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nnats-service = {{ path = {core:?} }}\n{dependencies}",
        kind.name()
    ))
}

/// The program: the types, and the methods over them.
fn program(kind: Kind, edit: usize) -> Result<String> {
    let mut text = String::from("#![allow(dead_code)]\nuse serde::{Deserialize, Serialize};\n\n");
    for at in 0..METHODS {
        writeln!(
            text,
            "#[derive(Debug, Serialize, Deserialize)]\n\
             pub struct Request{at} {{ pub id: String, pub name: String, pub age: u32, pub tags: Vec<String> }}\n\
             #[derive(Debug, Serialize, Deserialize)]\n\
             pub struct Answer{at} {{ pub id: String, pub name: String, pub age: u32, pub found: Option<bool> }}\n"
        )?;
    }
    match kind {
        Kind::Service { methods } => service(&mut text, methods)?,
        Kind::ByHand { methods } => by_hand(&mut text, methods)?,
    }
    // In one handler.
    let edited = format!("age: request.age + {edit},");
    Ok(text.replacen("age: request.age,", &edited, 1))
}

const BODY: &str = "{ id: request.id, name: request.name, age: request.age, found: None }";

fn service(text: &mut String, methods: usize) -> Result<()> {
    text.push_str("#[nats_service::nats_service(version = \"1.0.0\")]\npub trait Wide {\n");
    for at in 0..methods {
        writeln!(
            text,
            "    async fn method_{at}(&self, request: Request{at}) -> Answer{at};"
        )?;
    }
    text.push_str("}\n\npub struct Handler;\n\nimpl Wide for Handler {\n");
    for at in 0..methods {
        writeln!(
            text,
            "    async fn method_{at}(&self, request: Request{at}) -> Answer{at} {{ Answer{at} {BODY} }}"
        )?;
    }
    // Served and called, so that what is generic is compiled, too.
    text.push_str(
        "}\n\n#[tokio::main]\nasync fn main() -> Result<(), Box<dyn std::error::Error>> {\n    \
         let nats = async_nats::connect(\"127.0.0.1:4222\").await?;\n    \
         let running = nats_service::Server::new(nats.clone()).serve(WideServer::new(Handler)).start().await?;\n    \
         let client = WideClient::new(nats);\n",
    );
    for at in 0..methods {
        writeln!(
            text,
            "    client.method_{at}(Request{at} {{ id: String::new(), name: String::new(), age: 0, tags: Vec::new() }}).await?;"
        )?;
    }
    text.push_str(
        "    running.shutdown(std::time::Duration::from_secs(1)).await?;\n    Ok(())\n}\n",
    );
    Ok(())
}

fn by_hand(text: &mut String, methods: usize) -> Result<()> {
    text.push_str(
        "use futures_util::StreamExt;\n\n#[tokio::main]\nasync fn main() -> Result<(), Box<dyn std::error::Error>> {\n    \
         let nats = async_nats::connect(\"127.0.0.1:4222\").await?;\n    \
         let mut requests = nats.queue_subscribe(\"wide.*\", \"wide\".to_owned()).await?;\n    \
         while let Some(message) = requests.next().await {\n        \
         let Some(reply) = message.reply else { continue };\n        \
         let body = match message.subject.as_str() {\n",
    );
    for at in 0..methods {
        writeln!(
            text,
            "            \"wide.method_{at}\" => {{\n                \
             let request: Request{at} = serde_json::from_slice(&message.payload)?;\n                \
             serde_json::to_vec(&Answer{at} {BODY})?\n            }}"
        )?;
    }
    text.push_str("            _ => continue,\n        };\n        nats.publish(reply, body.into()).await?;\n    }\n");
    // The calling side as well, since ours has it.
    for at in 0..methods {
        writeln!(
            text,
            "    let request = Request{at} {{ id: String::new(), name: String::new(), age: 0, tags: Vec::new() }};\n    \
             let answer = nats.request(\"wide.method_{at}\", serde_json::to_vec(&request)?.into()).await?;\n    \
             let _: Answer{at} = serde_json::from_slice(&answer.payload)?;"
        )?;
    }
    text.push_str("    Ok(())\n}\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{MANY, METHODS, ONE, manifest, program};

    #[test]
    fn the_two_programs_differ_in_their_methods_alone() {
        let (many, one) = (
            program(MANY, 0).expect("text"),
            program(ONE, 0).expect("text"),
        );
        assert_eq!(many.matches("pub struct Request").count(), METHODS);
        assert_eq!(one.matches("pub struct Request").count(), METHODS);
        // In the trait, and in its implementation.
        assert_eq!(many.matches("async fn method_").count(), 2 * METHODS);
        assert_eq!(one.matches("async fn method_").count(), 2);
    }

    #[test]
    fn the_manifest_takes_its_versions_from_the_workspace() {
        let text = manifest(ONE).expect("a manifest");
        assert!(text.contains("nats-service = { path = "), "{text}");
        assert!(text.contains("async-nats = { version = \"0."), "{text}");
    }
}
