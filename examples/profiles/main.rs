//! A service whose answers are kept, a client that calls it, and readers that bypass it.
//!
//! `cargo run --example profiles` plays the whole story on a private nats-server; `-- --nats URL` plays it on yours.
//! `cargo run --example profiles -- serve --nats URL` serves until a signal comes, and then drains.

// What is `pub` here would be exported by a crate of its own.
#![allow(unreachable_pub)]

mod contract;
mod service;
mod story;

use async_nats::jetstream;
use contract::ProfilesServer;
use nats_service::{Running, Server, async_nats};
use nats_service_testkit::TestServer;
use service::ProfileService;
use std::process::ExitCode;
use std::time::Duration;

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const USAGE: &str = "usage: profiles [serve] [--nats URL]";

struct Arguments {
    serve: bool,
    nats: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result {
    let arguments = parse(std::env::args().skip(1))?;
    // Kept until the end: the server dies with this value.
    let (_private, url) = match arguments.nats {
        Some(url) => (None, url),
        None => {
            let server = TestServer::start().await?;
            let url = server.url().to_owned();
            println!(
                "no --nats URL given: a private nats-server {} listens on {url}\n",
                server.version()
            );
            (Some(server), url)
        }
    };
    if arguments.serve {
        serve(&url).await
    } else {
        story::play(&url).await
    }
}

/// Starts the service on a connection of its own.
async fn start(url: &str) -> Result<Running> {
    let nats = async_nats::connect(url).await?;
    let jetstream = jetstream::new(nats.clone());
    let server = Server::new(nats)
        .with_jetstream(jetstream)
        .serve(ProfilesServer::new(ProfileService));
    Ok(server.start().await?)
}

async fn serve(url: &str) -> Result {
    let running = start(url).await?;
    println!("serving `profiles` on {url}; a signal ends it");
    signal().await?;
    println!("draining");
    let report = running.shutdown(Duration::from_secs(30)).await?;
    println!(
        "stopped; {} answers were written on the way out",
        report.written
    );
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn signal() -> Result {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut parsed = Arguments {
        serve: false,
        nats: None,
    };
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "serve" => parsed.serve = true,
            "--nats" => parsed.nats = Some(arguments.next().ok_or("--nats needs a URL")?),
            other => return Err(format!("`{other}` is not understood; {USAGE}").into()),
        }
    }
    Ok(parsed)
}
