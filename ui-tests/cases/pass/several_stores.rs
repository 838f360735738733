//! Several stores of one method, and conditions in every form.
#![deny(missing_docs)]
#![deny(warnings)]

use nats_service::nats_service;
use std::collections::BTreeMap;

/// A request.
#[nats_service::message]
pub struct Note<'a> {
    id: &'a str,
    #[serde(borrow)]
    text: std::borrow::Cow<'a, str>,
}

/// A limit.
pub const LIMIT: usize = 3;

fn is_short(text: &str) -> bool {
    text.len() < LIMIT
}

type Answer<T> = Result<T, nats_service::Error>;

/// Notes.
#[nats_service]
pub trait Notes {
    /// Kept in three places.
    #[kv_store(bucket = "notes", key = "<id>", history = 5, write = "before_reply")]
    #[kv_store(bucket = "long", key = "<id>", name = "long_notes", when = |request, response| request.text.len() > *response as usize)]
    #[object_store(bucket = "files", key = "note.<id>", name = "files", when = |_, response| *response > 7)]
    #[kv_evict(bucket = "drafts", key = "<id>", when = |response| *response > 7)]
    async fn write(&self, request: Note<'_>) -> Answer<u64>;

    /// Several arguments.
    #[kv_store(bucket = "pairs", key = "<a>.<b>", name = "pairs", when = |a, _, response| {
        let map = BTreeMap::<&str, bool>::from([(*a, is_short(a))]);
        map.len() < LIMIT && response.is_some()
    }, history = 2)]
    async fn pair(&self, a: &str, b: u64) -> Option<u64>;

    /// None.
    #[object_evict(bucket = "files", key = "all", when = |answer: &bool| *answer)]
    async fn clear(&self) -> bool;
}

/// Reads them.
pub fn read(stores: &NotesStores) {
    let _: NotesWriteStore = stores.write();
    let _: NotesLongNotesStore = stores.long_notes();
    let _: NotesFilesStore = stores.files();
    let _: NotesPairsStore = stores.pairs();
}

fn main() {
    let specs: Vec<_> = NotesContract::SPEC.methods.iter().flat_map(|method| method.stores).collect();
    let names: Vec<_> = specs.iter().map(|store| (store.name, store.conditional)).collect();
    assert_eq!(
        names,
        [("write", false), ("long_notes", true), ("files", true), ("", true), ("pairs", true), ("", true)]
    );
}
