//! What many keys held at one moment, also while some of them are written.
//!
//! An answer of one part is of one moment, and any number of keys that stay as they are can be watched standing still. So the
//! keys that were seen to change are asked for together, in one part: that is the moment. Then everything else is asked
//! whether it has changed since it was known; if not, it was so at that moment, too.

use super::{Floor, GetMany, PAGE, PAGES, SINGLES, leader_has, part_with};
use crate::store::error::StoreError;
use crate::store::kv::{Entry, KvStore};
use crate::store::multi::{Ask, Multi, Part};
use crate::store::stream::Stored;
use futures_util::future::BoxFuture;
use futures_util::stream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// How often a moment is looked for.
const ROUNDS: usize = 10;

/// What some keys held at one revision.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot<T> {
    /// The bucket's revision at which all of it was so; 0 where none of the keys was ever written.
    pub revision: u64,
    /// The values by their keys.
    pub entries: BTreeMap<String, Entry<T>>,
}

/// A page of subjects, and the revision at which it is known.
struct Known {
    subjects: Vec<String>,
    at: u64,
}

/// What has changed in a page.
struct Changes {
    changed: Vec<Stored>,
    /// Until when that is known; not said where none of the subjects was ever written.
    seen: Option<u64>,
    parts: usize,
}

impl<T: DeserializeOwned> GetMany<T> {
    /// The values of all keys **as of one revision**: what they held at the same moment.
    ///
    /// Up to 1,023 keys, whose values have no more than some 4 MiB together, are read in one request, and always succeed,
    /// whoever writes them. Of more, those that are written meanwhile may be so many; the others are only compared.
    /// A [`level`](GetMany::level) says how old that moment may be.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`] when more of these keys than that are written all the time;
    /// [`StoreError::Unsupported`] on a server before 2.11 or a bucket without direct get; and those of
    /// [`KvKey::get`](crate::KvKey::get), for each value.
    pub async fn snapshot(self) -> Result<Snapshot<T>, StoreError> {
        let (store, level) = (self.store.clone(), self.level);
        let pages = self.pages(PAGE)?;
        let keys = pages.iter().map(Vec::len).sum();
        let Floor {
            revision: floor,
            mut witness,
        } = store.floor(level).await?;
        let known = |subjects| Known { subjects, at: 0 };
        let mut pages: Vec<Known> = pages.into_iter().map(known).collect();
        let mut entries = BTreeMap::new();
        // What was seen to change, by subject.
        let mut moving = BTreeSet::new();
        for round in 0..ROUNDS {
            let at = pages.iter().map(|page| page.at).fold(floor, u64::max);
            let moment = moment(&store, &moving, at).await?;
            let revision = moment.as_ref().and_then(|part| part.seen).unwrap_or(at);
            let asked = pages
                .iter()
                .map(|page| changes(&store, page, revision, &witness));
            let asked: Vec<_> = asked.collect();
            let found: Vec<Changes> = stream::iter(asked).buffered(PAGES).try_collect().await?;

            let alone = matches!(&found[..], [] | [Changes { parts: 1, .. }]);
            let mut settled = true;
            if moment.is_none() {
                // None did, or too many: perhaps fewer do now.
                moving.clear();
            }
            for (page, Changes { changed, seen, .. }) in pages.iter_mut().zip(found) {
                // Where nothing was ever written nobody says until when that is so, unless a witness is asked along.
                settled &= seen.is_some();
                page.at = seen.map_or(page.at, |seen| seen.max(page.at));
                for stored in changed {
                    if round > 0 && !moving.contains(&stored.subject) {
                        settled = false;
                        moving.insert(stored.subject.clone());
                    }
                    witness = Some(stored.subject.clone());
                    take(&store, &mut entries, &stored)?;
                }
            }
            let newest = pages.iter().map(|page| page.at).max().unwrap_or(0);
            if newest == 0 && (keys == 0 || nothing(&store, &pages, floor).await?) {
                return Ok(Snapshot {
                    revision: 0,
                    entries,
                });
            }
            if alone && newest > 0 {
                return Ok(Snapshot {
                    revision: newest,
                    entries,
                });
            }
            if round > 0 && settled {
                for subject in &moving {
                    entries.remove(store.key_of(subject));
                }
                for stored in moment.map(|part| part.messages).unwrap_or_default() {
                    take(&store, &mut entries, &stored)?;
                }
                return Ok(Snapshot { revision, entries });
            }
        }
        Err(StoreError::Unsettled { keys })
    }
}

fn take<T: DeserializeOwned>(
    store: &KvStore<T>,
    entries: &mut BTreeMap<String, Entry<T>>,
    stored: &Stored,
) -> Result<(), StoreError> {
    let key = store.key_of(&stored.subject);
    match Entry::read(key, stored, store.codec)? {
        Some(entry) => entries.insert(key.to_owned(), entry),
        None => entries.remove(key),
    };
    Ok(())
}

/// What these held at one moment, not before this revision; `None` where they are too many, or too large, for that.
async fn moment<T>(
    store: &KvStore<T>,
    moving: &BTreeSet<String>,
    at: u64,
) -> Result<Option<Part>, StoreError> {
    if moving.is_empty() || moving.len() > PAGE {
        return Ok(None);
    }
    let subjects: Vec<String> = moving.iter().cloned().collect();
    let ask = Ask {
        subjects: &subjects,
        from: 0,
    };
    match part_with(&store.stream, ask, at).await? {
        Multi::Part(part) if !part.more && part.seen.is_some() => Ok(Some(part)),
        _ => Ok(None),
    }
}

/// What has changed in a page since it was known, as seen by replicas that have this revision.
fn changes<'a, T>(
    store: &'a KvStore<T>,
    page: &'a Known,
    revision: u64,
    witness: &'a Option<String>,
) -> BoxFuture<'a, Result<Changes, StoreError>> {
    let stream = &store.stream;
    async move {
        let witness = witness
            .as_ref()
            .filter(|witness| !page.subjects.contains(witness));
        let mut subjects = page.subjects.clone();
        subjects.extend(witness.cloned());
        let (mut changed, mut parts, mut seen) = (Vec::new(), 0, None);
        let (mut from, mut least) = (page.at + 1, revision);
        loop {
            let ask = Ask {
                subjects: &subjects,
                from,
            };
            let Multi::Part(part) = part_with(stream, ask, least).await? else {
                return Err(StoreError::Unsupported {
                    what: "a snapshot of many keys",
                    needs: "nats-server 2.11 or later, and a bucket with direct get (`allow_direct`)",
                });
            };
            parts += 1;
            // By sequence: what is left out has later ones, or was written again, and then has, too. Whoever brings the next
            // part is to know what this one knew.
            from = part.messages.last().map_or(from, |last| last.sequence + 1);
            least = part.seen.unwrap_or(least).max(least);
            seen = seen.or(part.seen);
            // Or nothing but what was written since the first part, of which there may be no end.
            let more = part.more && seen.is_some_and(|seen| from <= seen);
            let of_page = |stored: &Stored| Some(&stored.subject) != witness;
            changed.extend(part.messages.into_iter().filter(of_page));
            if !more {
                return Ok(Changes {
                    changed,
                    seen,
                    parts,
                });
            }
        }
    }
    .boxed()
}

/// Whether there is nothing at all of these, which no replica can show to have seen enough.
async fn nothing<T>(store: &KvStore<T>, pages: &[Known], floor: u64) -> Result<bool, StoreError> {
    if floor == 0 {
        return Ok(true);
    }
    leader_has(&store.stream, floor).await?;
    let subjects = pages.iter().flat_map(|page| &page.subjects);
    let last: Vec<_> = subjects
        .map(|subject| store.stream.leaders_last(subject))
        .collect();
    let found = stream::iter(last).buffer_unordered(SINGLES);
    let found: Vec<Option<Stored>> = found.try_collect().await?;
    Ok(found.iter().all(Option::is_none))
}
