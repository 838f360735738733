//! The test of a contract: is what was promised still true, and if not, does the version say so?

use super::AsyncApi;
use super::compare::{Difference, differences};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};

/// The environment variable that makes [`check`] write the file: `NATS_SERVICE_CONTRACT=update`.
const UPDATE: &str = "NATS_SERVICE_CONTRACT";

/// Which part of a semantic version a change asks for. Below 1.0.0 a breaking change asks for the minor one.
///
/// ```
/// use nats_service::contract::Bump;
/// assert!(Bump::Major > Bump::Minor);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bump {
    /// Nothing has changed that anybody sees.
    None,
    /// Something was added: 1.2.3 becomes 1.3.0. Not enforced.
    Minor,
    /// Something broke: 1.2.3 becomes 2.0.0, and 0.2.3 becomes 0.3.0.
    Major,
}

/// Nothing broke, or the version says that it did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unchanged {
    /// What has changed since the file was written.
    pub differences: Vec<Difference>,
    /// What that asks of the version.
    pub due: Bump,
    /// The file was written.
    pub updated: bool,
}

/// Why a contract does not pass.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContractError {
    /// There is nothing to compare with yet.
    #[error("there is no contract in `{}`; write it with `{UPDATE}=update cargo test`, and commit it", .0.display())]
    Missing(PathBuf),
    /// The file cannot be read or written, or is no JSON.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The contract broke, and its version does not say so.
    #[error(
        "the contract has changed incompatibly since version {old}:\n{}so its version has to be {due} or later; it is {new}. Undo the changes, or write `#[nats_service(version = \"{due}\")]` and then renew the file with `{UPDATE}=update cargo test`",
        Lines(breaking)
    )]
    Incompatible {
        /// The version in the file.
        old: String,
        /// The version in the code.
        new: String,
        /// The version that is due.
        due: String,
        /// What broke.
        breaking: Vec<Difference>,
    },
    /// A new version was given, and the file is of the old one.
    #[error(
        "the file holds version {old} of the contract, and the code is {new}; renew it with `{UPDATE}=update cargo test`, and commit it"
    )]
    NotRenewed {
        /// The version in the file.
        old: String,
        /// The version in the code.
        new: String,
    },
    /// Versions only grow.
    #[error("the file holds version {old} of the contract, and the code has the older {new}")]
    Older {
        /// The version in the file.
        old: String,
        /// The version in the code.
        new: String,
    },
}

struct Lines<'d>(&'d [Difference]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|one| writeln!(f, "  - {one}"))
    }
}

/// Compares a contract with the one that was committed in `file`; for a test of your own.
///
/// Additions pass, and so does everything under a new version that is high enough once the file was renewed. The file
/// is written when the environment says `NATS_SERVICE_CONTRACT=update`; not even then over an incompatible change without a
/// new version. Commit it, and renew it when something was added, so that what was added is kept too.
///
/// ```no_run
/// # use nats_service::nats_service;
/// # #[nats_service] pub trait Profiles { async fn count(&self) -> u64; }
/// #[test]
/// # fn hidden() {}
/// fn the_contract_is_kept() {
///     let file = concat!(env!("CARGO_MANIFEST_DIR"), "/contracts/profiles.json");
///     nats_service::contract::check(file, &ProfilesContract::asyncapi()).unwrap_or_else(|error| panic!("{error}"));
/// }
/// ```
///
/// # Errors
/// Says what broke and which version is due, or what is wrong with the file.
pub fn check(file: impl AsRef<Path>, contract: &AsyncApi) -> Result<Unchanged, ContractError> {
    let path = file.as_ref();
    let update = std::env::var(UPDATE).is_ok_and(|value| value == "update");
    let failed = |source| ContractError::File {
        path: path.to_owned(),
        source,
    };
    let mut unchanged = match std::fs::read(path) {
        Ok(text) => {
            let old: Value = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
            match check_against(&old, contract) {
                Err(ContractError::NotRenewed { .. }) if update => Unchanged {
                    differences: differences(&old, contract.as_value()),
                    due: Bump::None,
                    updated: false,
                },
                other => other?,
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !update {
                return Err(ContractError::Missing(path.to_owned()));
            }
            Unchanged {
                differences: Vec::new(),
                due: Bump::None,
                updated: false,
            }
        }
        Err(error) => return Err(failed(error)),
    };
    if update {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        std::fs::write(path, format!("{contract}\n")).map_err(failed)?;
        unchanged.updated = true;
    }
    Ok(unchanged)
}

/// Compares a contract with an earlier document of it, from wherever that comes.
///
/// # Errors
/// As [`check`].
pub fn check_against(old: &Value, contract: &AsyncApi) -> Result<Unchanged, ContractError> {
    let new = contract.as_value();
    let version = |document: &Value| {
        document["info"]["version"]
            .as_str()
            .unwrap_or("0.0.0")
            .to_owned()
    };
    let (old_text, new_text) = (version(old), version(new));
    let (before, after) = (Version::of(&old_text), Version::of(&new_text));
    let differences = differences(old, new);
    let breaking: Vec<_> = differences
        .iter()
        .filter(|one| one.breaking)
        .cloned()
        .collect();
    if after < before {
        return Err(ContractError::Older {
            old: old_text,
            new: new_text,
        });
    }
    if !breaking.is_empty() && !before.may_break_in(after) {
        return Err(ContractError::Incompatible {
            due: before.after_a_break(),
            old: old_text,
            new: new_text,
            breaking,
        });
    }
    if old_text != new_text {
        return Err(ContractError::NotRenewed {
            old: old_text,
            new: new_text,
        });
    }
    let due = match (&breaking[..], &differences[..]) {
        ([_, ..], _) => Bump::Major,
        (_, [_, ..]) => Bump::Minor,
        _ => Bump::None,
    };
    Ok(Unchanged {
        differences,
        due,
        updated: false,
    })
}

/// Of a semantic version, what compatibility goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    numbers: [u64; 3],
    /// Not a pre-release: that one comes first.
    released: bool,
}

impl Version {
    fn of(text: &str) -> Self {
        let text = text.split('+').next().unwrap_or_default();
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, _)) => (numbers, true),
            None => (text, false),
        };
        let mut parts = numbers.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Self {
            numbers: [next(), next(), next()],
            released: !pre,
        }
    }

    /// Whether `other` is allowed to break what this one promised.
    fn may_break_in(self, other: Self) -> bool {
        let ([major, minor, _], [other_major, other_minor, _]) = (self.numbers, other.numbers);
        // A pre-release promises nothing yet.
        !self.released || other_major > major || major == 0 && other_minor > minor
    }

    fn after_a_break(self) -> String {
        match self.numbers {
            [0, minor, _] => format!("0.{}.0", minor + 1),
            [major, ..] => format!("{}.0.0", major + 1),
        }
    }
}
