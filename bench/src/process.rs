//! The processes of a measurement, and the CPU time of one. Each is killed when its handle is dropped, and ends itself when the
//! parent is gone, which it sees by the end of its standard input.

use crate::Result;
use crate::contender::{Contender, Workload};
use crate::load::Outcome;
use crate::machine::Machine;
use crate::valgrind::Count;
use serde::de::DeserializeOwned;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// A child that takes longer to say its next line, beyond what it was told to take, hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// This binary once more.
#[derive(Debug)]
struct Process {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(arguments: &[&str]) -> Result<Self> {
        Self::spawn(Command::new(std::env::current_exe()?), arguments)
    }

    fn spawn(mut command: Command, arguments: &[&str]) -> Result<Self> {
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().ok_or("no pipe to the child")?;
        let output = child.stdout.take().ok_or("no pipe from the child")?;
        let lines = BufReader::new(output).lines();
        Ok(Self {
            child,
            input,
            lines,
        })
    }

    async fn line(&mut self, takes: Duration) -> Result<String> {
        let line = timeout(takes + PATIENCE, self.lines.next_line()).await;
        let line = line.map_err(|_| "a child said nothing for too long")??;
        line.ok_or_else(|| "a child ended early".into())
    }

    /// Has it end by itself.
    async fn end(mut self) -> Result<()> {
        drop(self.input);
        let status = timeout(PATIENCE, self.child.wait()).await;
        let status = status.map_err(|_| "a child did not end")??;
        if !status.success() {
            return Err(format!("a child failed: {status}").into());
        }
        Ok(())
    }
}

/// Starts a child for one thing, and has its line about it.
pub(crate) async fn child_line(arguments: &[&str], takes: Duration) -> Result<String> {
    Process::start(arguments)?.line(takes).await
}

/// A contender that answers.
#[derive(Debug)]
pub(crate) struct Service {
    process: Process,
    subject: String,
    url: String,
    count: Option<Count>,
}

impl Service {
    /// Returns when requests are answered. `steps`: see `work::compute`.
    pub(crate) async fn start(
        url: &str,
        contender: Contender,
        workload: Workload,
        steps: u64,
    ) -> Result<Self> {
        let command = Command::new(std::env::current_exe()?);
        Self::answering(command, None, url, (contender, workload), steps).await
    }

    /// The same under valgrind.
    pub(crate) async fn start_counted(
        url: &str,
        contender: Contender,
        workload: Workload,
    ) -> Result<Self> {
        let count = Count::new(contender.name());
        let command = count.command()?;
        Self::answering(command, Some(count), url, (contender, workload), 0).await
    }

    async fn answering(
        command: Command,
        count: Option<Count>,
        url: &str,
        (contender, workload): (Contender, Workload),
        steps: u64,
    ) -> Result<Self> {
        let (steps, contender) = (steps.to_string(), contender.name());
        let arguments = ["serve", contender, workload.name()];
        let options = ["--nats", url, "--steps", &steps];
        let mut process = Process::spawn(command, &[&arguments[..], &options[..]].concat())?;
        let subject = process.line(Duration::ZERO).await;
        let subject = subject.map_err(|error| format!("{contender} did not start: {error}"))?;
        Ok(Self {
            process,
            subject,
            url: url.to_owned(),
            count,
        })
    }

    /// Ends it: what it has executed since its start.
    pub(crate) async fn instructions(self) -> Result<u64> {
        self.process.end().await?;
        self.count.ok_or("nobody counted")?.read()
    }

    /// Puts it under load, and measures.
    pub(crate) async fn measure(&self, load: &Load) -> Result<Measured> {
        Ok(self.measure_from(load, || Ok(())).await?.0)
    }

    /// The same, and what `reading` says when the warm-up is over.
    pub(crate) async fn measure_from<T>(
        &self,
        load: &Load,
        reading: impl FnOnce() -> Result<T>,
    ) -> Result<(Measured, T)> {
        let mut arguments = vec!["load", "--nats", &self.url, "--subject", &self.subject];
        let options = load.options();
        arguments.extend(options.iter().map(String::as_str));
        let mut process = Process::start(&arguments)?;
        let warm = process.line(load.warm_up).await?;
        if warm != "warm" {
            return Err(format!("the generator said {warm:?}").into());
        }
        let (before, reading) = ((self.cpu()?, Machine::read()?), reading()?);
        process.input.write_all(b"go\n").await?;
        let takes = match load.end {
            End::Seconds(seconds) => Duration::from_secs_f64(seconds),
            End::Requests(_) => Duration::ZERO,
        };
        let outcome: Outcome = serde_json::from_str(&process.line(takes).await?)?;
        let cpu = self.cpu()? - before.0;
        let machine = Machine::read()?.since(before.1);
        let measured = Measured {
            outcome,
            cpu,
            machine,
        };
        Ok((measured, reading))
    }

    fn cpu(&self) -> Result<Duration> {
        cpu_time_of(self.process.child.id().ok_or("the service ended")?)
    }
}

/// How a service is loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) sending: Sending,
    pub(crate) warm_up: Duration,
    pub(crate) end: End,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Sending {
    /// A closed loop.
    InFlight(usize),
    /// An open one, in requests per second.
    Rate(f64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Seconds(f64),
    Requests(u64),
}

impl Load {
    fn options(&self) -> [String; 6] {
        let (sending, much) = match self.sending {
            Sending::InFlight(requests) => ("--in-flight", requests.to_string()),
            Sending::Rate(rate) => ("--rate", rate.to_string()),
        };
        let (end, long) = match self.end {
            End::Seconds(seconds) => ("--seconds", seconds.to_string()),
            End::Requests(requests) => ("--requests", requests.to_string()),
        };
        let warm_up = self.warm_up.as_secs_f64().to_string();
        [
            sending.into(),
            much,
            end.into(),
            long,
            "--warm-up".into(),
            warm_up,
        ]
    }
}

/// What the generator saw, and what the service spent on it.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// User and system time of the service's process.
    pub(crate) cpu: Duration,
    /// What all cores did meanwhile.
    pub(crate) machine: Machine,
}

impl Measured {
    /// User and system time of the service's process, in microseconds.
    pub(crate) fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.outcome.requests as f64
    }
}

/// Runs this binary with these arguments, and reads what it reports in its one line.
pub(crate) async fn report_of<T: DeserializeOwned>(arguments: &[&str]) -> Result<T> {
    let mut process = Process::start(arguments)?;
    let line = process.line(Duration::from_secs(300)).await?;
    Ok(serde_json::from_str(&line)?)
}

/// What this binary executes with these arguments, counted by valgrind; it has to say a line before it ends.
pub(crate) async fn instructions_of(arguments: &[&str]) -> Result<u64> {
    let count = Count::new("child");
    let mut process = Process::spawn(count.command()?, arguments)?;
    process.line(Duration::from_secs(60)).await?;
    process.end().await?;
    count.read()
}

/// User and system time of this process.
pub(crate) fn own_cpu_time() -> Result<Duration> {
    cpu_time(&std::fs::read_to_string("/proc/self/stat")?)
}

/// User and system time of another one.
pub(crate) fn cpu_time_of(id: u32) -> Result<Duration> {
    cpu_time(&std::fs::read_to_string(format!("/proc/{id}/stat"))?)
}

/// For a child: ends this process when the parent does.
pub(crate) fn exit_with_parent() {
    tokio::spawn(async {
        let mut nothing = Vec::new();
        // An error means the same as the end: nobody is there.
        let _ = tokio::io::stdin().read_to_end(&mut nothing).await;
        std::process::exit(0);
    });
}

/// User and system time in a `/proc/<pid>/stat`.
fn cpu_time(stat: &str) -> Result<Duration> {
    // Linux shows it in hundredths of a second whatever the kernel's own tick is.
    const TICK: Duration = Duration::from_millis(10);
    // The name comes second, in parentheses, and may itself hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || -> Result<u32> { Ok(times.next().ok_or("a short stat")?.parse()?) };
    Ok(TICK * (ticks()? + ticks()?))
}

#[cfg(test)]
mod tests {
    use super::cpu_time;
    use std::time::Duration;

    #[test]
    fn cpu_time_is_user_and_system_whatever_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 9 0 0 0 150 25 3 4 20 0 3 0 99 0 0";
        let time = cpu_time(stat).expect("well formed");
        assert_eq!(time, Duration::from_millis(1_750));
        assert!(cpu_time("7 (a) S 1").is_err());
    }
}
