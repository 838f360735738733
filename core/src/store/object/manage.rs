//! What changes an object without touching its bytes: deleting, linking, and what is said of it.

use super::super::error::StoreError;
use super::super::stream::Stream;
use super::commit::{Committed, Current, Expected, commit, live, not_found, purge_versions};
use super::content;
use super::info::{Meta, MetaOptions, ObjectInfo, ObjectLink, ObjectMeta};
use super::upload::fresh_nuid;

/// What is there, unless it is deleted.
pub(super) fn live_of<'a>(
    name: &str,
    there: Option<&'a Current>,
) -> Result<&'a Current, StoreError> {
    let live = there.filter(|there| !there.info.deleted);
    live.ok_or_else(|| not_found(name))
}

/// Deletes the object: whether there was one.
pub(super) async fn delete(
    stream: &Stream,
    name: &str,
    expected: Expected,
) -> Result<bool, StoreError> {
    content::refuse(name)?;
    let mut nuid = None;
    let committed = commit(stream, name, |there| {
        expected.check(name, there)?;
        let there = live_of(name, there)?;
        let own = there.info.link.is_none();
        nuid = Some(there.info.nuid.clone()).filter(|nuid| own && !nuid.is_empty());
        Ok(Meta::deleted(stream.bucket(), &there.info))
    });
    match committed.await.map_err(StoreError::from) {
        Ok(Committed { replaced, .. }) => {
            purge_versions(stream, replaced.into_iter().chain(nuid)).await;
            Ok(true)
        }
        // Somebody else deleted it.
        Err(StoreError::ObjectNotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Changes what is said of the object, and nothing else.
pub(super) async fn describe(
    stream: &Stream,
    name: &str,
    expected: Expected,
    mut change: impl FnMut(&mut ObjectMeta),
) -> Result<ObjectInfo, StoreError> {
    content::refuse(name)?;
    let committed = commit(stream, name, |there| {
        let there = live_of(name, there)?;
        expected.check(name, Some(there))?;
        let mut said = there.info.meta();
        change(&mut said);
        Ok(there.meta.clone().described(&said))
    });
    Ok(committed.await?.info)
}

/// Makes a link, in place of nothing or of another link.
pub(super) async fn link(
    stream: &Stream,
    name: &str,
    target: ObjectLink,
) -> Result<ObjectInfo, StoreError> {
    content::refuse(name)?;
    if let Some(target_name) = &target.name {
        let refuse = |reason| StoreError::Link {
            name: target_name.clone(),
            reason,
        };
        if content::is_content(target_name) {
            return Err(refuse(
                "is for shared bytes: store them with `Upload::shared`",
            ));
        }
        if target.bucket == stream.bucket() && target_name == name {
            return Err(refuse("cannot be a link to itself"));
        }
        let other = super::stream(stream.js.clone(), &target.bucket);
        if live(&other, target_name).await?.info.link.is_some() {
            return Err(refuse(
                "is a link itself, and a link to a link is not followed: link to what it leads to",
            ));
        }
    }
    let meta = Meta {
        name: name.to_owned(),
        bucket: stream.bucket().to_owned(),
        nuid: fresh_nuid(stream),
        options: Some(MetaOptions {
            link: Some(target),
            ..MetaOptions::default()
        }),
        ..Meta::default()
    };
    let committed = commit(stream, name, |there| {
        match there.filter(|there| !there.info.deleted) {
            Some(there) if there.info.link.is_none() => Err(StoreError::ObjectExists {
                name: name.to_owned(),
            }),
            _ => Ok(meta.clone()),
        }
    });
    let Committed { info, replaced } = committed.await?;
    purge_versions(stream, replaced).await;
    Ok(info)
}
