//! The map of a view against that of the standard library.

use super::*;
use crate::store::stream::Stored;
use std::collections::HashMap;
use std::time::SystemTime;

fn cell(key: &str, revision: u64) -> Cell<u64> {
    let stored = Stored {
        subject: String::new(),
        sequence: revision,
        headers: async_nats::HeaderMap::new(),
        payload: revision.to_string().into(),
        created: SystemTime::UNIX_EPOCH,
    };
    let entry = Entry::read(key, &stored, crate::Codec::Json);
    Cell::Readable(Arc::new(entry.unwrap().unwrap()))
}

#[test]
fn it_holds_what_a_map_of_the_standard_library_holds_and_copies_never_change() {
    let mut map = Map::new();
    let mut model = HashMap::new();
    let mut copies = Vec::new();
    let mut random = 1_u64;
    for step in 0..60_000_u64 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let key = format!("user.{}", (random >> 33) % 5_000);
        if random.is_multiple_of(3) {
            assert_eq!(map.remove(&key), model.remove(&key).is_some());
        } else {
            map.insert(cell(&key, step));
            model.insert(key, step);
        }
        if step % 10_000 == 0 {
            copies.push((map.clone(), model.clone()));
        }
    }
    copies.push((map, model));
    for (map, model) in copies {
        assert_eq!((map.readable(), map.unreadable()), (model.len(), 0));
        assert_eq!(map.iter().count(), model.len());
        for (key, revision) in model {
            assert_eq!(map.get(&key).map(Cell::revision), Some(revision));
        }
        assert!(map.get("user.5001").is_none());
    }
}

#[test]
fn hashes_that_are_alike_are_told_apart_by_their_keys() {
    let mut root = Node::Empty;
    for n in 0..100 {
        assert!(insert(&mut root, 7, 0, cell(&n.to_string(), n)).is_none());
    }
    for n in 0..100 {
        assert!(insert(&mut root, 7, 0, cell(&n.to_string(), n + 1)).is_some());
        let removed = remove(&mut root, 7, 0, &n.to_string());
        assert_eq!(removed.map(|cell| cell.revision()), Some(n + 1));
    }
}
