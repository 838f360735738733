//! Programs in other languages that use the official clients, at the command of a test: what is made here is read there, and
//! the other way round.
//!
//! A peer is a process of its own (`tests/interop/peer.py`, `tests/interop/peer.cjs`) that takes a line of JSON and answers with one.
//! Both know the same operations, so that one test serves for both; what a peer can do stands in its file. The clients are
//! installed by their package names and exact versions, once for a set of versions, into the user's cache. A machine without
//! Python or Node fails these tests and says what is missing: they never pass by not running.

use crate::soon;
use serde_json::{Value, json};
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// A language with an official client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `nats-py`.
    Python,
    /// `@nats-io/transport-node` and its sisters.
    Node,
}

/// A program that uses the official client of its language. It ends when this is dropped.
#[derive(Debug)]
pub struct Peer {
    language: Language,
    _child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts one that is connected to the server, and installs its client where that is missing.
    ///
    /// # Panics
    /// When the language or its client cannot be had.
    pub async fn start(language: Language, url: &str) -> Self {
        let installed = tokio::task::spawn_blocking(move || language.install());
        let installed = installed.await.expect("a thread");
        let modules = installed.unwrap_or_else(|reason| panic!("{language:?}: {reason}"));
        let mut child = tokio::process::Command::new(language.program())
            .arg(folder().join(language.script()))
            .arg(url)
            .env(language.search_path(), modules)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the language was there a moment ago");
        let input = child.stdin.take().expect("a pipe");
        let output = child.stdout.take().expect("a pipe");
        let mut peer = Self {
            language,
            _child: child,
            input,
            lines: BufReader::new(output).lines(),
        };
        assert_eq!(peer.answer().await, Ok(json!("ready")));
        peer
    }

    /// Which language it is of.
    #[must_use]
    pub fn language(&self) -> Language {
        self.language
    }

    /// Has it do something: its result, or the text of its error.
    ///
    /// # Errors
    /// What the client raised.
    ///
    /// # Panics
    /// When the peer ends, or says nothing for too long.
    pub async fn ask(&mut self, operation: &str, mut arguments: Value) -> Result<Value, String> {
        arguments["op"] = operation.into();
        let line = format!("{arguments}\n");
        let written = self.input.write_all(line.as_bytes());
        written.await.expect("the peer lives");
        self.answer().await
    }

    /// The same, for what must succeed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn must(&mut self, operation: &str, arguments: Value) -> Value {
        let said = format!("{operation} {}", excerpt(&arguments));
        let done = self.ask(operation, arguments).await;
        done.unwrap_or_else(|error| panic!("{:?}: {said}: {error}", self.language))
    }

    async fn answer(&mut self) -> Result<Value, String> {
        let line = soon("the peer's answer", self.lines.next_line()).await;
        let line = line.expect("text");
        let line = line.unwrap_or_else(|| panic!("{:?} ended; see above why", self.language));
        let mut answer: Value = serde_json::from_str(&line).expect("JSON");
        match answer["error"].take() {
            Value::String(error) => Err(error),
            _ => Ok(answer["ok"].take()),
        }
    }
}

fn excerpt(arguments: &Value) -> String {
    arguments.to_string().chars().take(200).collect()
}

/// Where the peers are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

impl Language {
    fn program(self) -> &'static str {
        match self {
            Self::Python => "python3",
            Self::Node => "node",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Self::Python => "peer.py",
            Self::Node => "peer.cjs",
        }
    }

    /// Which variable tells the language where installed packages are.
    fn search_path(self) -> &'static str {
        match self {
            Self::Python => "PYTHONPATH",
            Self::Node => "NODE_PATH",
        }
    }

    /// The file with the packages and their versions.
    fn manifest(self) -> &'static str {
        match self {
            Self::Python => "requirements.txt",
            Self::Node => "package.json",
        }
    }

    /// Installs the packages, unless another process did or does: where they are.
    ///
    /// The lock makes the others wait; the rename makes what they see whole.
    fn install(self) -> Result<PathBuf, String> {
        present(self.program())?;
        let manifest = folder().join(self.manifest());
        let text = std::fs::read_to_string(&manifest).map_err(|error| error.to_string())?;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let name = format!("{}-{:016x}", self.program(), hasher.finish());
        let cache = cache()?;
        let place = cache.join(&name);
        let io = |error: std::io::Error| format!("{}: {error}", cache.display());
        std::fs::create_dir_all(&cache).map_err(io)?;
        let lock = File::create(cache.join(format!("{name}.lock"))).map_err(io)?;
        lock.lock().map_err(io)?;
        if !place.exists() {
            let unfinished = cache.join(format!("{name}.unfinished"));
            if unfinished.exists() {
                std::fs::remove_dir_all(&unfinished).map_err(io)?;
            }
            std::fs::create_dir(&unfinished).map_err(io)?;
            self.install_into(&unfinished, &manifest)?;
            std::fs::rename(&unfinished, &place).map_err(io)?;
        }
        Ok(match self {
            Self::Python => place,
            Self::Node => place.join("node_modules"),
        })
    }

    fn install_into(self, target: &Path, manifest: &Path) -> Result<(), String> {
        let mut command = match self {
            Self::Python => {
                let mut pip = Command::new("python3");
                pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]);
                pip.args(["--disable-pip-version-check", "--target"]);
                pip.arg(target).arg("--requirement").arg(manifest);
                pip
            }
            Self::Node => {
                present("npm")?;
                std::fs::copy(manifest, target.join("package.json"))
                    .map_err(|error| error.to_string())?;
                let mut npm = Command::new("npm");
                npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]);
                npm.args(["--no-package-lock", "--engine-strict=false"]);
                npm.current_dir(target);
                npm
            }
        };
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("{command:?}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?} failed:\n{said}"))
    }
}

fn present(program: &str) -> Result<(), String> {
    let output = Command::new(program).arg("--version").output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(format!(
            "`{program}` is not on the PATH: the tests with other languages' clients need Python 3 with pip, and Node 20 with npm"
        )),
    }
}

fn cache() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = match (set("XDG_CACHE_HOME"), set("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => return Err("neither XDG_CACHE_HOME nor HOME is set".to_owned()),
    };
    Ok(base.join("nats-service-tests"))
}
