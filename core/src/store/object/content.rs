//! Bytes that are stored once and have many names.
//!
//! They are an object of their own, named after their digest, which never changes; each name is a link to it, which every client
//! follows. So nothing that happens to one name touches another. Whoever links to them renews their metadata first, and they
//! are only removed at the revision at which nobody linked to them: that keeps a sweep from racing with a new name.

use super::super::error::StoreError;
use super::super::stream::Stream;
use super::commit::{Committed, Expected, Failed, commit, purge_versions};
use super::info::{Meta, MetaOptions, ObjectInfo, ObjectLink};
use super::orphans::old_enough;
use super::resume::all_metadata;
use super::upload::fresh_nuid;
use super::window::Chunks;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

/// Before the digest, in the names of shared bytes.
const PREFIX: &str = ".sha256/";

/// Whether it is the name of shared bytes.
pub(super) fn is_content(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Keeps users from changing shared bytes: other names have them too.
pub(super) fn refuse(name: &str) -> Result<(), StoreError> {
    if !is_content(name) {
        return Ok(());
    }
    Err(StoreError::ObjectName {
        name: name.to_owned(),
        reason: "names under `.sha256/` are for bytes that several names share; write or delete those names, and use `remove_unshared` for bytes that have none",
    })
}

fn name_of(digest: &str) -> String {
    let digest = digest.strip_prefix("SHA-256=").unwrap_or(digest);
    format!("{PREFIX}{digest}")
}

/// Whether these bytes are there, and then for how long they are not to be removed: renewed just now. Their size.
pub(super) async fn renew(stream: &Stream, digest: &str) -> Result<Option<u64>, StoreError> {
    let name = name_of(digest);
    let missing = || StoreError::ObjectNotFound { name: name.clone() };
    let renewed = commit(stream, &name, |there| match there {
        Some(there) if !there.info.deleted => Ok(there.meta.clone()),
        _ => Err(missing()),
    });
    match renewed.await {
        Ok(renewed) => Ok(Some(renewed.info.size)),
        Err(Failed::Refused(StoreError::ObjectNotFound { .. })) => Ok(None),
        Err(failed) => Err(failed.into()),
    }
}

/// A name's metadata for these bytes.
pub(super) fn link(stream: &Stream, digest: &str, size: u64) -> Meta {
    Meta {
        bucket: stream.bucket().to_owned(),
        nuid: fresh_nuid(stream),
        size,
        digest: Some(digest.to_owned()),
        options: Some(MetaOptions {
            link: Some(ObjectLink {
                bucket: stream.bucket().to_owned(),
                name: Some(name_of(digest)),
            }),
            ..MetaOptions::default()
        }),
        ..Meta::default()
    }
}

/// Publishes a name's metadata, and removes what it replaced.
pub(super) async fn publish(
    stream: &Stream,
    meta: Meta,
    expected: Expected,
) -> Result<ObjectInfo, StoreError> {
    let name = meta.name.clone();
    let committed = commit(stream, &name, |there| {
        expected.check(&name, there)?;
        Ok(meta.clone())
    });
    let Committed { info, replaced } = committed.await?;
    purge_versions(stream, replaced).await;
    Ok(info)
}

/// Makes shared bytes of what was uploaded, or drops it where they are there already; and then a name for them.
pub(super) async fn share(
    mut chunks: Chunks,
    mut meta: Meta,
    expected: Expected,
) -> Result<ObjectInfo, StoreError> {
    let stream = chunks.stream.clone();
    let digest = meta.digest.clone().unwrap_or_default();
    let content = Meta {
        name: name_of(&digest),
        bucket: meta.bucket.clone(),
        nuid: meta.nuid.clone(),
        size: meta.size,
        chunks: meta.chunks,
        digest: meta.digest.clone(),
        options: meta.options.take(),
        ..Meta::default()
    };
    // What is there is renewed, and what is not is made.
    let made = commit(&stream, &content.name, |there| match there {
        Some(there) if !there.info.deleted => Ok(there.meta.clone()),
        _ => Ok(content.clone()),
    });
    match made.await {
        // What was uploaded goes with `chunks`, unless it is what is there now.
        Ok(made) => chunks.orphans = made.info.nuid != content.nuid,
        Err(failed) => {
            if matches!(failed, Failed::Unknown) {
                chunks.orphans = false;
            }
            return Err(failed.into());
        }
    }
    drop(chunks);
    let name = Meta {
        name: meta.name,
        description: meta.description,
        headers: meta.headers,
        metadata: meta.metadata,
        ..link(&stream, &digest, meta.size)
    };
    publish(&stream, name, expected).await
}

/// Removes shared bytes that no name links to, and that were last linked to so long ago: how many, and their size.
pub(super) async fn remove_unshared(
    stream: &Stream,
    older_than: Duration,
) -> Result<(u64, u64), StoreError> {
    let older_than = old_enough(stream, older_than).await;
    let mut contents = HashMap::new();
    let mut linked = HashSet::new();
    let mut all = all_metadata(stream).await?;
    while let Some(info) = all.next().await? {
        if info.deleted {
            continue;
        }
        if let Some(link) = info.link {
            if link.bucket == stream.bucket() {
                linked.extend(link.name);
            }
        } else if is_content(&info.name) {
            contents.insert(info.name.clone(), info);
        }
    }
    let now = SystemTime::now();
    let (mut removed, mut bytes) = (0, 0);
    for (name, info) in contents {
        let age = now.duration_since(info.modified).unwrap_or_default();
        if linked.contains(&name) || age < older_than {
            continue;
        }
        let gone = commit(stream, &name, |there| {
            Expected::Revision(info.revision).check(&name, there)?;
            Ok(Meta::deleted(stream.bucket(), &info))
        });
        match gone.await {
            Ok(_) => {
                purge_versions(stream, [info.nuid]).await;
                removed += 1;
                bytes += info.size;
            }
            // Somebody has just linked to them.
            Err(Failed::Refused(StoreError::Conflict { .. })) => {}
            Err(failed) => return Err(failed.into()),
        }
    }
    Ok((removed, bytes))
}
