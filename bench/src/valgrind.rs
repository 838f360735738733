//! Instructions that a child executes, counted by valgrind: a figure that hardly depends on what else the machine does.
//!
//! By cachegrind without its caches, and not by callgrind: both count the same instructions, but callgrind makes a program so
//! slow that a cheap handler is taken for one that computes, and is given a task of its own.

use crate::Result;
use std::path::PathBuf;
use tokio::process::Command;

/// Whether it is on the PATH.
pub(crate) async fn is_there() -> bool {
    let version = Command::new("valgrind").arg("--version").output().await;
    version.is_ok_and(|output| output.status.success())
}

/// One child's count.
#[derive(Debug)]
pub(crate) struct Count(PathBuf);

impl Count {
    /// `name` tells children apart that run at one time.
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("nats-service-bench-{}-{name}.count", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// Runs this binary under valgrind.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new("valgrind");
        // What it has to say of the machine's caches is of no use here.
        command.args(["-q", "--log-file=/dev/null"]);
        command.args(["--tool=cachegrind", "--cache-sim=no"]);
        let mut file = std::ffi::OsString::from("--cachegrind-out-file=");
        file.push(&self.0);
        command.arg(file).arg(std::env::current_exe()?);
        Ok(command)
    }

    /// What was counted until the child ended.
    pub(crate) fn read(&self) -> Result<u64> {
        summary(&std::fs::read_to_string(&self.0)?)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        // There is none when the child was killed.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The total, which stands in the last line.
fn summary(text: &str) -> Result<u64> {
    let mut lines = text.lines().rev();
    let summary = lines.find_map(|line| line.strip_prefix("summary:"));
    let count = summary.and_then(|line| line.split_whitespace().next());
    Ok(count.ok_or("valgrind counted nothing")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn the_count_is_in_the_summary() {
        let text = "desc: x\ncmd: y\nevents: Ir\nfl=a.c\nfn=main\n1 2\nsummary: 12345\n";
        assert_eq!(summary(text).expect("a count"), 12_345);
        assert!(summary("events: Ir\n").is_err());
    }
}
