//! Side-by-side measurements: our services against what a user would write or pick instead.
//!
//! `cargo run --release -p bench -- list` names the benches, `-- <name>` runs one, `-- all` runs every one; `--rounds N` and
//! `--seconds S` make a quick run, and `--ours bare` shows what the machine's noise alone makes of the rows. A table is printed, and `target/bench/<name>.json` written.
//!
//! Every contender, the server and the load generator are processes of their own: this binary starts itself again as `serve`
//! or `load`. Nothing here fails because something was slow; a goal that is missed is a row that says so.

mod args;
mod benches;
mod contender;
mod cost;
mod load;
mod machine;
mod process;
mod report;
mod valgrind;
mod work;
mod writes;

use args::Args;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Whatever went wrong: it is only ever printed.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let outcome = Args::parse(std::env::args().skip(1)).and_then(|args| match args.command() {
        "serve" => contender::serve(&args),
        "load" => load::main(&args),
        "cost" => cost::child(&args),
        "writes" => writes::run(&args),
        "keys" => benches::kv::read(&args),
        "watches" => benches::watch::child(&args),
        "transfer" => benches::object::transfer(&args),
        _ => compare(&args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The parent: one thread is plenty, and leaves the cores to what is measured.
#[tokio::main(flavor = "current_thread")]
async fn compare(args: &Args) -> Result<()> {
    // A signal must end this function and not the process, so that what was started is dropped, and with it killed.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = benches::run(args) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}
