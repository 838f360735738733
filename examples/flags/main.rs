//! Feature flags: read with every request from a local copy, changed by an operator, rolled back, and still there while
//! the server is not.
//!
//! `cargo run --example flags` plays it on a private nats-server and ends by itself.

use nats_service::async_nats::jetstream::{self, kv};
use nats_service::{KvStore, View, async_nats, message};
use nats_service_testkit::TestServer;
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[message]
#[derive(Debug, Clone)]
struct Flag {
    /// Of a hundred users, so many see it.
    percent: u64,
}

/// What every request asks: no await, no lock, and an answer whatever happens.
fn is_on(flags: &View<Flag>, name: &str, user: u64) -> bool {
    match flags.get(name) {
        Ok(Some(flag)) => user % 100 < flag.value().percent,
        // No such flag, or none that this version can read: as it was before there was one.
        Ok(None) | Err(_) => false,
    }
}

fn users_that_see(flags: &View<Flag>, name: &str) -> usize {
    (0..100).filter(|user| is_on(flags, name, *user)).count()
}

#[tokio::main]
async fn main() -> ExitCode {
    match tokio::time::timeout(Duration::from_secs(120), play()).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("error: the story did not come to its end in time");
            ExitCode::FAILURE
        }
    }
}

async fn connect(server: &TestServer) -> Result<KvStore<Flag>> {
    let nats = async_nats::connect(server.url()).await?;
    Ok(KvStore::bind(jetstream::new(nats), "flags")?)
}

async fn play() -> Result {
    let server = TestServer::start().await?;
    let nats = async_nats::connect(server.url()).await?;
    let bucket = kv::Config {
        bucket: "flags".to_owned(),
        history: 10,
        ..Default::default()
    };
    jetstream::new(nats).create_key_value(bucket).await?;

    // Three processes, as far as NATS can tell: an operator, and two services that ask for the flags.
    let operator = connect(&server).await?.key("checkout.new")?;
    let shop = connect(&server).await?.view().await?;
    let mail = connect(&server).await?.under("checkout")?.view().await?;
    println!(
        "no flag yet: {} of 100 users see the new checkout",
        users_that_see(&shop, "checkout.new")
    );

    let careful = operator.put(&Flag { percent: 10 }).await?;
    shop.wait_for(careful).await?;
    mail.wait_for(careful).await?;
    println!(
        "revision {careful}: {} of 100 see it",
        users_that_see(&shop, "checkout.new")
    );

    let bold = operator.put(&Flag { percent: 100 }).await?;
    shop.wait_for(bold).await?;
    println!(
        "revision {bold}: {} of 100 see it",
        users_that_see(&shop, "checkout.new")
    );

    let mut changes = mail.changes();
    let back = operator.roll_back(careful).await?;
    shop.wait_for(back).await?;
    println!(
        "that was too bold; rolled back as revision {back}: {} of 100",
        users_that_see(&shop, "checkout.new")
    );
    while mail.revision() < back {
        changes.next().await?;
    }
    println!(
        "the mail service was told, too: {} of 100",
        users_that_see(&mail, "checkout.new")
    );

    let reads = 5_000_000_u32;
    let started = Instant::now();
    let seen = (0..u64::from(reads))
        .filter(|user| is_on(&shop, "checkout.new", *user))
        .count();
    let each = started.elapsed() / reads;
    println!("{reads} questions of one thread took {each:?} each; {seen} were answered with yes");

    server.kill().await?;
    while shop.status().connected {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "the server is gone: {} of 100 all the same, last heard {:?} ago",
        users_that_see(&shop, "checkout.new"),
        shop.status().age
    );

    server.restart().await?;
    let off = loop {
        match operator.put(&Flag { percent: 0 }).await {
            Ok(revision) => break revision,
            Err(error) => println!("not yet: {error}"),
        }
    };
    shop.wait_for(off).await?;
    println!(
        "and it is back; revision {off}: {} of 100",
        users_that_see(&shop, "checkout.new")
    );
    Ok(())
}
