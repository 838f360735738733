//! One server process, and the watchdog that ends it when its owner no longer can.
//!
//! `Drop` does for an orderly end and for a panic. For an owner that is killed or aborts there is a small shell beside each
//! server, whose standard input is a pipe that only the owner holds: when the owner is gone, whatever the way, the pipe
//! ends, and the shell kills the server and removes its directory. (Linux has a parent death signal, but that follows the
//! *thread* that spawned, and a runtime's threads come and go.)
//!
//! Both stand in process groups of their own: Ctrl-C in a terminal reaches the owner, which may still want its server.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Lines that come in: a process id to guard, `idle` for none, `done` for the end of the duty.
///
/// A killed process may be busy for a moment yet, and write into its directory: hence the repetition.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP QUIT PIPE
pid=
while read -r line; do
  case $line in
    done) exit 0 ;;
    idle) pid= ;;
    *) pid=$line ;;
  esac
done
[ -n "$pid" ] && kill -9 "$pid"
tries=0
while rm -rf "$1"; [ -e "$1" ] && [ "$tries" -lt 200 ]; do
  tries=$((tries + 1))
  sleep 0.05
done
"#;

/// The server starts only when told so, after the watchdog knows its process id: an owner that is killed in between
/// leaves nothing behind, because the gate ends with its pipe.
const GATE: &str = r#"read -r _ && exec "$@" </dev/null"#;

/// What to run, and where its output goes.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) log: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Process {
    child: Option<Child>,
    last_exit: Option<ExitStatus>,
    paused: bool,
    watchdog: Watchdog,
}

impl Process {
    /// No process yet, but a watchdog over the directory.
    pub(crate) fn guarding(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            child: None,
            last_exit: None,
            paused: false,
            watchdog: Watchdog::over(dir)?,
        })
    }

    pub(crate) fn start(&mut self, launch: &Launch) -> io::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&launch.log)?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", GATE, "nats-server"])
            .arg(&launch.program)
            .args(&launch.args)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let gate = child.stdin.take();
        let told = self.watchdog.tell(&child.id().to_string());
        self.child = Some(child);
        self.last_exit = None;
        self.paused = false;
        told?;
        if let Some(mut gate) = gate {
            gate.write_all(b"go\n")?;
        }
        Ok(())
    }

    /// The process id, while the process runs.
    pub(crate) fn id(&mut self) -> Option<u32> {
        self.reap_if_ended();
        self.child.as_ref().map(Child::id)
    }

    /// How the process ended, when it has.
    pub(crate) fn exit(&mut self) -> Option<ExitStatus> {
        self.reap_if_ended();
        self.last_exit
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether the operating system has stopped it.
    pub(crate) fn is_stopped(&mut self) -> io::Result<bool> {
        let Some(pid) = self.pid() else {
            return Ok(false);
        };
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(pid), options)?.is_some_and(|status| status.stopped()))
    }

    /// False when there is no process to signal.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<bool> {
        self.reap_if_ended();
        let Some(pid) = self.pid() else {
            return Ok(false);
        };
        kill_process(pid, signal)?;
        match signal {
            Signal::STOP => self.paused = true,
            Signal::CONT => self.paused = false,
            _ => {}
        }
        Ok(true)
    }

    /// Ends the process, waits for its end, removes the directory with `remove` and lets the watchdog go.
    pub(crate) fn end(&mut self, remove: impl FnOnce() -> io::Result<()>) {
        if let Some(mut child) = self.child.take() {
            // Nothing to be done about a failure here; the watchdog will try again.
            let ended = child.kill().and_then(|()| child.wait());
            if ended.is_err() {
                return self.watchdog.release();
            }
            let _ = self.watchdog.tell("idle");
        }
        if remove().is_ok() {
            let _ = self.watchdog.tell("done");
        }
        self.watchdog.release();
    }

    fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }

    fn reap_if_ended(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Ok(Some(status)) = child.try_wait() {
            self.child = None;
            self.paused = false;
            self.last_exit = Some(status);
            let _ = self.watchdog.tell("idle");
        }
    }
}

#[derive(Debug)]
struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    fn over(dir: &Path) -> io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "nats-service-testkit-watchdog"])
            .arg(dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.pipe {
            Some(pipe) => pipe.write_all(format!("{line}\n").as_bytes()),
            None => Ok(()),
        }
    }

    /// Closes the pipe and waits for the shell to end: at once when it was told `done`, after its duty otherwise.
    fn release(&mut self) {
        self.pipe = None;
        let _ = self.child.wait();
    }
}
