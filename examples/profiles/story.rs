//! The story, step by step.

use crate::contract::{
    DeleteProfile, Profile, ProfileError, ProfilesClient, ReportRequest, SaveProfile,
};
use crate::{Result, start};
use async_nats::jetstream;
use futures_util::StreamExt as _;
use nats_service::{CallError, Code, Operation, StoreError, Watch, WatchEvent, async_nats};
use std::time::{Duration, Instant};

pub async fn play(url: &str) -> Result {
    let running = start(url).await?;
    let nats = async_nats::connect(url).await?;
    let profiles = ProfilesClient::new(nats.clone()).with_jetstream(jetstream::new(nats));
    // An id of this run's own, so that the story can be played on a server that has heard it before.
    let id = format!("ada-{}", std::process::id());

    chapter("The trait is a service");
    println!("    try: nats micro info profiles   (while `-- serve` runs)");

    chapter("A watch is set on the profile, before there is one");
    let stores = profiles.stores()?;
    let mine = stores.save_profile().at(&id)?;
    let mut changes = mine.watch().await?;
    if let WatchEvent::InitialDone = changes.next().await.ok_or("the watch ended")?? {
        println!("    nothing there yet");
    }

    chapter("Calls: each answer comes first, and is then kept");
    let mut first = 0;
    for (name, email) in [
        ("Ada", "ada@example.org"),
        ("Ada Byron", "ada@example.org"),
        ("Ada Lovelace", "ada@example.com"),
    ] {
        let asked = Instant::now();
        let saved = profiles
            .save_profile(SaveProfile {
                id: id.clone(),
                name: name.into(),
                email: email.into(),
            })
            .await?;
        let took = asked.elapsed();
        let revision = next_revision(&mut changes).await?;
        println!(
            "    {:<14} answered in {took:>8.1?}, kept as revision {revision}",
            saved.name
        );
        if first == 0 {
            first = revision;
        }
    }

    chapter("Readers go to the bucket, and bypass the service");
    let entry = mine.get().await?.ok_or("the profile is gone")?;
    println!(
        "    {} is {} <{}>",
        entry.key(),
        entry.value().name,
        entry.value().email
    );
    for change in mine.history().await? {
        if let Operation::Put(Profile { name, email, .. }) = change.operation {
            println!("    revision {}: {name} <{email}>", change.revision);
        }
    }

    chapter("Compare and swap: who comes second is told, and told by whom");
    let stale = first;
    match mine.update(entry.value(), stale).await {
        Err(StoreError::Conflict { current, .. }) => {
            println!(
                "    revision {stale} is no longer the last, {} is",
                current.unwrap_or_default()
            );
        }
        other => return Err(format!("a conflict was expected, not {other:?}").into()),
    }

    chapter("Roll back to the first version");
    let revision = mine.roll_back(first).await?;
    let back = mine.get().await?.ok_or("the profile is gone")?;
    println!(
        "    revision {revision}: {} <{}>",
        back.value().name,
        back.value().email
    );

    chapter("Errors keep their type, and bad input never reaches the handler");
    let nobody = SaveProfile {
        id: id.clone(),
        name: "Nobody".into(),
        email: "nowhere".into(),
    };
    match profiles.save_profile(&nobody).await {
        Err(CallError::Service(ProfileError::InvalidEmail { email })) => {
            println!("    the service: `{email}` is no e-mail address")
        }
        other => return Err(format!("a typed error was expected, not {other:?}").into()),
    }
    match profiles
        .save_profile(SaveProfile {
            id: "7.admin".into(),
            ..nobody
        })
        .await
    {
        Err(error) if error.code() == Code::InvalidArgument => {
            println!("    the framework: {error}")
        }
        other => return Err(format!("a refusal was expected, not {other:?}").into()),
    }

    chapter("A report of 50 MB is an ordinary call");
    let asked = Instant::now();
    let report = profiles
        .generate_report(ReportRequest {
            id: id.clone(),
            bytes: 50_000_000,
        })
        .await?;
    println!(
        "    {} bytes in {:.2?}, by way of the object store",
        report.text.len(),
        asked.elapsed()
    );
    let kept = stores
        .generate_report()
        .at(&id)?
        .info()
        .await?
        .ok_or("the report is gone")?;
    println!(
        "    kept as `{}`: {} bytes in {} chunks, {}",
        kept.name,
        kept.size,
        kept.chunks,
        kept.digest.unwrap_or_default()
    );

    chapter("Deleting the profile removes its entry");
    profiles
        .delete_profile(DeleteProfile { id: id.clone() })
        .await?;
    // The rollback is seen first.
    next_revision(&mut changes).await?;
    let revision = next_revision(&mut changes).await?;
    println!(
        "    deleted at revision {revision}; a read finds {:?}",
        mine.get().await?.map(|entry| entry.into_value().name)
    );

    chapter("A stop loses nothing");
    let report = running.shutdown(Duration::from_secs(10)).await?;
    println!(
        "    requests ended, replies sent, {} writes drained, {} lost",
        report.written,
        report.unwritten.len()
    );
    Ok(())
}

fn chapter(title: &str) {
    println!("\n* {title}");
}

/// The revision of the next change that the watch sees.
async fn next_revision(changes: &mut Watch<Profile>) -> Result<u64> {
    loop {
        if let WatchEvent::Change(change) = changes.next().await.ok_or("the watch ended")?? {
            return Ok(change.revision);
        }
    }
}
