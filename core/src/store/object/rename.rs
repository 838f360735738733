//! Another name for an object. No byte is copied.
//!
//! A bucket that takes atomic batches gets both names' metadata in one: both are stored or neither, whatever is killed. In others the
//! new name is stored before the old one is gone; repeated after an interruption, that is brought to its end. In either there is no
//! moment without a name: in a batch the new one comes first as well, since a reader of a replica that takes a batch in may see a part of
//! it (both names, once in 80,000 looks, 2.15.1).

use super::super::batch::{Ack, Write};
use super::super::error::{Refusal, StoreError, other};
use super::super::stream::{Stream, back_off};
use super::commit::{
    ATTEMPTS, Current, Expected, PATIENCE, commit, doubt, latest, live, not_found, purge_versions,
    read,
};
use super::content;
use super::info::{Meta, ObjectInfo, meta_subject};
use super::manage::live_of;
use super::upload::fresh_nuid;
use super::window::passes;
use async_nats::header::NATS_ROLLUP;
use async_nats::jetstream::response::Response;
use async_nats::{HeaderMap, StatusCode};
use std::time::{Duration, Instant, SystemTime};

/// How long the answer to a batch is waited for.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn rename(
    stream: &Stream,
    old: &str,
    new: &str,
) -> Result<ObjectInfo, StoreError> {
    content::refuse(old)?;
    content::refuse(new)?;
    let there = live(stream, old).await?;
    if old == new {
        return Ok(there.info);
    }
    let info = stream.info().await;
    if info.is_ok_and(|info| info.config.allow_atomic) {
        at_once(stream, old, new).await
    } else {
        one_by_one(stream, there, old, new).await
    }
}

fn moved(new: &str, there: &Current) -> Meta {
    Meta {
        name: new.to_owned(),
        ..there.meta.clone()
    }
}

/// What is left of the old name must not seem to have had these bytes: whoever overwrites it would remove them.
fn left(stream: &Stream, there: &Current) -> Meta {
    Meta {
        nuid: fresh_nuid(stream),
        ..Meta::deleted(stream.bucket(), &there.info)
    }
}

async fn at_once(stream: &Stream, old: &str, new: &str) -> Result<ObjectInfo, StoreError> {
    let began = Instant::now();
    let subject = meta_subject(stream.bucket(), new);
    // The version of an attempt, whatever was said of it: while a leader changes, one that was refused may be stored all the same.
    let mut tried = None;
    let mut unknown = false;
    let (mut failed, mut doubts) = (StoreError::Timeout, 0);
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            let (base, max) = (Duration::from_millis(10), Duration::from_secs(2));
            tokio::time::sleep(back_off(attempt, base, max)).await;
        }
        let there = match live(stream, old).await {
            Ok(there) => there,
            Err(StoreError::ObjectNotFound { .. }) if tried.is_some() => {
                // It had its effect, if the version has the new name.
                let named = live(stream, new).await?.info;
                return (tried == Some(named.nuid.clone()))
                    .then_some(named)
                    .ok_or_else(|| not_found(old));
            }
            Err(error) if passes(&error) && began.elapsed() < PATIENCE => {
                failed = error;
                continue;
            }
            Err(error) => return Err(error),
        };
        let nuid = there.info.nuid.clone();
        let last = match latest(stream, &subject, doubts).await {
            Err(error) if passes(&error) && began.elapsed() < PATIENCE => {
                failed = error;
                continue;
            }
            last => last?,
        };
        let target = last.as_ref().and_then(read);
        if target.as_ref().is_some_and(|it| {
            // Some links have none.
            !it.info.deleted && (nuid.is_empty() || it.info.nuid != nuid)
        }) {
            failed = StoreError::ObjectExists {
                name: new.to_owned(),
            };
            if doubt(stream, &mut doubts).await {
                continue;
            }
            return Err(failed);
        }
        let moved = moved(new, &there);
        let revisions = [
            (&moved, last.map_or(0, |last| last.sequence)),
            (&left(stream, &there), there.info.revision),
        ];
        let writes: Result<Vec<Write>, StoreError> = revisions
            .into_iter()
            .map(|(meta, expected)| write(stream, meta, expected))
            .collect();
        let id = fresh_nuid(stream);
        let batch = stream.batch(&id, writes?.into_iter(), ANSWERED_WITHIN);
        tried = Some(nuid.clone());
        let Some(answer) = batch.await? else {
            unknown = true;
            if began.elapsed() > PATIENCE {
                break;
            }
            continue;
        };
        let refusal = if answer.status == Some(StatusCode::NO_RESPONDERS) {
            Refusal::NoResponders
        } else {
            match serde_json::from_slice(&answer.payload).map_err(|error| other(&error))? {
                Response::Ok(Ack { seq }) => {
                    let old = target.filter(|it| it.info.link.is_none() && it.info.nuid != nuid);
                    let old = old.map(|it| it.info.nuid).filter(|nuid| !nuid.is_empty());
                    purge_versions(stream, old).await;
                    // The revisions are given out in a row.
                    return Ok(moved.into_info(seq - 1, SystemTime::now()));
                }
                Response::Err { error } => Refusal::from(&error),
            }
        };
        if let Refusal::WrongLastSequence(_) = refusal {
            failed = StoreError::ObjectChanged {
                name: old.to_owned(),
            };
            continue;
        }
        failed = stream.explain(refusal).await;
        if !passes(&failed) || began.elapsed() > PATIENCE {
            break;
        }
    }
    Err(match unknown {
        true => StoreError::Timeout,
        false => failed,
    })
}

fn write(stream: &Stream, meta: &Meta, expected: u64) -> Result<Write, StoreError> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_ROLLUP, "sub");
    Ok(Write {
        subject: meta_subject(stream.bucket(), &meta.name),
        headers,
        payload: serde_json::to_vec(meta)
            .map_err(|error| other(&error))?
            .into(),
        expected: Some(expected),
    })
}

async fn one_by_one(
    stream: &Stream,
    there: Current,
    old: &str,
    new: &str,
) -> Result<ObjectInfo, StoreError> {
    let moved = moved(new, &there);
    let nuid = there.info.nuid.clone();
    let named = commit(stream, new, |there| {
        match there.filter(|there| !there.info.deleted) {
            // Some links have none.
            Some(there) if nuid.is_empty() || there.info.nuid != nuid => {
                Err(StoreError::ObjectExists {
                    name: new.to_owned(),
                })
            }
            _ => Ok(moved.clone()),
        }
    });
    let named = named.await?;
    purge_versions(stream, named.replaced).await;
    let left = left(stream, &there);
    let ended = commit(stream, old, |there| match live_of(old, there) {
        Ok(there) if there.info.nuid == nuid => Ok(left.clone()),
        _ => Err(StoreError::ObjectChanged {
            name: old.to_owned(),
        }),
    });
    match ended.await.map_err(StoreError::from) {
        Ok(_) => Ok(named.info),
        // Somebody overwrote or deleted the old name meanwhile, and removed the bytes with it.
        Err(error @ StoreError::ObjectChanged { .. }) => {
            let revision = named.info.revision;
            let undone = commit(stream, new, |there| {
                Expected::Revision(revision).check(new, there)?;
                Ok(Meta::deleted(stream.bucket(), &named.info))
            });
            undone.await?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}
