//! The services that are compared. Each is the real thing, written as its users would write it, and runs alone in a process
//! on the runtime that `#[tokio::main]` gives. What they compute is in `work`; how they are loaded, in `load`.

mod bare;
mod ours;
mod service_module;

use crate::args::Args;
use crate::work::{Answer, Request};
use crate::{Result, work};
use std::str::FromStr;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    /// This project.
    Ours,
    /// A loop over a queue subscription, written by hand.
    Bare,
    /// The same loop with a task per request.
    BareSpawn,
    /// The `service` module of async-nats, as documented.
    ServiceModule,
}

impl Contender {
    const ALL: [Self; 4] = [Self::Ours, Self::Bare, Self::BareSpawn, Self::ServiceModule];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Bare => "bare",
            Self::BareSpawn => "bare-spawn",
            Self::ServiceModule => "service-module",
        }
    }
}

/// What the handler does, and what becomes of its answer. Named like the method that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Workload {
    /// Answers at once.
    Echo,
    /// Does a millisecond's work first, however long that takes.
    Compute,
    /// Keeps its core for a millisecond first, however much gets done.
    Clock,
    /// Answers at once, and the answer is kept in the bucket [`BUCKET`] under `user.<id>`.
    KeptEcho,
    /// Does a millisecond's work first, and the answer is kept.
    KeptCompute,
}

impl Workload {
    const ALL: [Self; 5] = [
        Self::Echo,
        Self::Compute,
        Self::Clock,
        Self::KeptEcho,
        Self::KeptCompute,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Compute => "compute",
            Self::Clock => "clock",
            Self::KeptEcho => "kept_echo",
            Self::KeptCompute => "kept_compute",
        }
    }

    pub(crate) fn is_kept(self) -> bool {
        matches!(self, Self::KeptEcho | Self::KeptCompute)
    }

    /// What a contender without a method a workload calls.
    fn answer(self, request: Request, steps: u64) -> Answer {
        match self {
            Self::Echo | Self::KeptEcho => work::echo(request),
            Self::Compute | Self::KeptCompute => work::compute(request, steps),
            Self::Clock => work::clock(request),
        }
    }
}

impl FromStr for Contender {
    type Err = ();
    fn from_str(name: &str) -> std::result::Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|it| it.name() == name).ok_or(())
    }
}

impl FromStr for Workload {
    type Err = ();
    fn from_str(name: &str) -> std::result::Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|it| it.name() == name).ok_or(())
    }
}

/// Where answers are kept.
pub(crate) const BUCKET: &str = "bench";

/// What a contender gets to know.
#[derive(Debug)]
struct Job {
    nats: async_nats::Client,
    workload: Workload,
    /// See `work::compute`.
    steps: u64,
}

/// `serve <contender> <workload> --nats URL --steps N`.
#[tokio::main]
pub(crate) async fn serve(args: &Args) -> Result<()> {
    let (contender, workload) = (args.word(1)?, args.word(2)?);
    let contender = contender.parse::<Contender>();
    let contender = contender.map_err(|()| format!("no contender {:?}", args.word(1)))?;
    let workload = workload.parse::<Workload>();
    let workload = workload.map_err(|()| format!("no workload {:?}", args.word(2)))?;
    crate::process::exit_with_parent();
    let nats = async_nats::connect(args.required::<String>("nats")?).await?;
    let job = Job {
        nats,
        workload,
        steps: args.optional("steps")?.unwrap_or(0),
    };
    match contender {
        Contender::Ours => ours::serve(job).await,
        Contender::Bare => bare::serve(job, false).await,
        Contender::BareSpawn => bare::serve(job, true).await,
        Contender::ServiceModule => service_module::serve(job).await,
    }
}

/// Tells the parent that requests to this subject are answered from now on.
async fn ready(nats: &async_nats::Client, subject: &str) -> Result<()> {
    // The subscription has reached the server when the answer to a ping behind it is back.
    nats.flush().await?;
    println!("{subject}");
    Ok(())
}
