//! Where a nats-server comes from.
//!
//! Blocking: it looks at files and runs `--version`. `TestServer` calls it off the runtime's threads.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use crate::error::{Attempt, Place};
use crate::{DEFAULT_VERSION, Error, OLDEST_VERSION};

/// Where to look for a nats-server: what the process's environment says, or something of your own.
///
/// The order is: the file that `NATS_SERVER_BIN` names; `nats-server` on the `PATH`; the cache directory; and, with
/// the feature `install`, an installation into the cache.
///
/// ```
/// use nats_service_testkit::{Environment, TestServer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let nowhere = Environment::empty();
/// let error = TestServer::builder().environment(nowhere).start().await.unwrap_err();
/// assert!(error.to_string().contains("set NATS_SERVER_BIN"));
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Environment {
    server_bin: Option<PathBuf>,
    version: Option<String>,
    path: Option<OsString>,
    cache_dir: Option<PathBuf>,
    install: bool,
}

impl Environment {
    /// What this process's environment says. This is the default.
    #[must_use]
    pub fn of_process() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let base = || {
            set("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(Path::new(&set("HOME")?).join(".cache")))
        };
        Self {
            server_bin: set("NATS_SERVER_BIN").map(PathBuf::from),
            // What is no text is no version, and is refused as one.
            version: set("NATS_SERVER_VERSION").map(|version| version.to_string_lossy().into()),
            path: set("PATH"),
            cache_dir: set("NATS_SERVICE_TESTKIT_CACHE")
                .map(PathBuf::from)
                .or_else(|| Some(base()?.join("nats-service-testkit"))),
            install: true,
        }
    }

    /// Nowhere at all, to add places to.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The program to run, as `NATS_SERVER_BIN` would name it.
    #[must_use]
    pub fn server_bin(mut self, program: impl Into<PathBuf>) -> Self {
        self.server_bin = Some(program.into());
        self
    }

    /// The version of every server that is asked for without one, as `NATS_SERVER_VERSION` would say it.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The directories to look in for `nats-server` and for pip, as `PATH` would list them.
    #[must_use]
    pub fn path(mut self, path: impl Into<OsString>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The directory that keeps installed servers, as `NATS_SERVICE_TESTKIT_CACHE` would name it.
    #[must_use]
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// Whether a server that is not found may be installed. Without the feature `install` it never is.
    #[must_use]
    pub fn install(mut self, install: bool) -> Self {
        self.install = install;
        self
    }

    /// The programs of this name on the path, in order.
    pub(crate) fn on_path<'a>(&'a self, name: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        let dirs = self.path.iter().flat_map(std::env::split_paths);
        dirs.map(move |dir| dir.join(name))
            .filter(|program| program.is_file())
    }

    #[cfg(feature = "install")]
    pub(crate) fn search_path(&self) -> Option<&OsString> {
        self.path.as_ref()
    }
}

/// A program that can be started, and its version.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

/// The first server that will do. Without a wanted version, here or in the environment, any that is not too old.
pub(crate) fn find(environment: &Environment, wanted: Option<&str>) -> Result<Found, Error> {
    let wanted = wanted.or(environment.version.as_deref());
    if let Some(version) = wanted {
        let parsed = version.parse::<Version>();
        if parsed.is_err() || parsed.is_ok_and(|version| version < Version::oldest()) {
            return Err(Error::Version {
                version: version.to_owned(),
                oldest: OLDEST_VERSION,
            });
        }
    }
    let mut attempts = Vec::new();
    let mut failed = |place, reason| attempts.push(Attempt { place, reason });
    let install = wanted.unwrap_or(DEFAULT_VERSION);

    let found = 'found: {
        match &environment.server_bin {
            None => failed(Place::ServerBin, "not set".to_owned()),
            Some(program) => match usable(program, wanted) {
                Ok(found) => break 'found Some(found),
                Err(reason) => {
                    let another = reason.is_another_version();
                    failed(Place::ServerBin, reason.to_string());
                    // Named explicitly and unusable: to go on silently with another one would hide a mistake. A test
                    // that asks for a version of its own, however, is not what the variable was set for.
                    if !another {
                        break 'found None;
                    }
                }
            },
        }
        let mut on_path = environment.on_path("nats-server").peekable();
        if on_path.peek().is_none() {
            failed(Place::Path, "not there".to_owned());
        }
        for program in on_path {
            match usable(&program, wanted) {
                Ok(found) => break 'found Some(found),
                Err(reason) => failed(Place::Path, reason.to_string()),
            }
        }
        let Some(cache) = &environment.cache_dir else {
            failed(
                Place::Cache(None),
                "there is no directory for it (no home directory is set)".to_owned(),
            );
            break 'found None;
        };
        let program = cached(cache, install);
        if program.is_file() {
            break 'found Some(Found {
                program,
                version: install.to_owned(),
            });
        }
        failed(
            Place::Cache(Some(cache.clone())),
            format!("no {install} in it"),
        );
        if !environment.install {
            failed(Place::Install, "switched off for this server".to_owned());
            break 'found None;
        }
        match crate::install::install(environment, cache, install) {
            Ok(()) => {
                break 'found Some(Found {
                    program,
                    version: install.to_owned(),
                });
            }
            Err(reason) => failed(Place::Install, reason.to_string()),
        }
        None
    };
    found.ok_or_else(|| Error::NoServer {
        wanted: wanted.map_or_else(
            || format!("{DEFAULT_VERSION} (or any from {OLDEST_VERSION} on)"),
            str::to_owned,
        ),
        attempts,
    })
}

/// Where the cache keeps the server of a version.
pub(crate) fn cached(cache: &Path, version: &str) -> PathBuf {
    cache
        .join(format!("nats-server-{version}"))
        .join("bin")
        .join("nats-server")
}

/// The program's own word for its version.
pub(crate) fn ask_version(program: &Path) -> Result<String, Unusable> {
    let path = || program.to_owned();
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Unusable::CannotRun {
            program: path(),
            source,
        })?;
    // "nats-server: v2.15.1"
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match said
        .rsplit(' ')
        .next()
        .map(|word| word.trim_start_matches('v'))
    {
        Some(version) if said.starts_with("nats-server") && version.parse::<Version>().is_ok() => {
            Ok(version.to_owned())
        }
        _ => Err(Unusable::NoVersion {
            program: path(),
            said,
        }),
    }
}

fn usable(program: &Path, wanted: Option<&str>) -> Result<Found, Unusable> {
    let version = ask_version(program)?;
    let program = program.to_owned();
    match wanted {
        Some(wanted) if wanted != version => Err(Unusable::Another { program, version }),
        _ if version
            .parse::<Version>()
            .is_ok_and(|version| version < Version::oldest()) =>
        {
            Err(Unusable::TooOld { program, version })
        }
        _ => Ok(Found { program, version }),
    }
}

/// Why a program that is there will not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{} can't be run: {source}", program.display())]
    CannotRun {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is no nats-server: to --version it said {said:?}", program.display())]
    NoVersion { program: PathBuf, said: String },
    #[error("found {version} ({}), another version was asked for", program.display())]
    Another { program: PathBuf, version: String },
    #[error("found {version} ({}), too old: before {OLDEST_VERSION} a kill can lose streams", program.display())]
    TooOld { program: PathBuf, version: String },
}

impl Unusable {
    fn is_another_version(&self) -> bool {
        matches!(self, Self::Another { .. })
    }
}

/// Three numbers, and whether something like `-RC.1` follows, which comes before the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version([u64; 3], bool);

impl Version {
    fn oldest() -> Self {
        // The constant parses; a test says so.
        OLDEST_VERSION.parse().unwrap_or(Self([u64::MAX; 3], true))
    }
}

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let (numbers, suffix) = text
            .split_once('-')
            .map_or((text, None), |(numbers, suffix)| (numbers, Some(suffix)));
        let plain = |suffix: &str| {
            suffix
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
        };
        if !suffix.is_none_or(plain) {
            return Err(NoVersion);
        }
        let mut numbers = numbers
            .split('.')
            .map(|number| number.parse::<u64>().map_err(|_| NoVersion));
        let mut next = || numbers.next().unwrap_or(Err(NoVersion));
        let version = Self([next()?, next()?, next()?], suffix.is_none());
        if numbers.next().is_some() {
            Err(NoVersion)
        } else {
            Ok(version)
        }
    }
}

/// The text is no version.
#[derive(Debug)]
pub(crate) struct NoVersion;

impl fmt::Display for NoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no version")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect(text)
    }

    #[test]
    fn versions_compare_by_number_and_a_candidate_comes_before_its_release() {
        assert!(version("2.9.10") < version("2.10.23"));
        assert!(version("2.10.23-RC.1") < version("2.10.23"));
        assert!(version("2.15.1") > version("2.15.0"));
        assert_eq!(Version::oldest(), version("2.10.23"));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "",
            "2",
            "2.12",
            "2.12.x",
            "2.12.8.1",
            "2.12.8 --x",
            "2.12.8-a b",
            "latest",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }
}
