//! A hash map whose copies cost nothing: a trie of shared nodes, of which a change copies the few on its way.
//!
//! The keeper of a view changes its own and hands out copies; what readers hold never changes. All changes between two
//! copies together copy a node once.

use super::Entry;
use crate::store::error::StoreError;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

/// Bits of the hash that a branch looks at.
const BITS: u32 = 5;
const WIDTH: usize = 1 << BITS;
/// What a leaf holds before it becomes a branch, unless no bit of the hash is left.
const LEAF: usize = 12;

/// What a key has.
#[derive(Debug)]
pub(super) enum Cell<T> {
    Readable(Arc<Entry<T>>),
    /// Always a [`StoreError::Undecodable`].
    Unreadable(Arc<StoreError>),
}

impl<T> Clone for Cell<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Readable(entry) => Self::Readable(entry.clone()),
            Self::Unreadable(error) => Self::Unreadable(error.clone()),
        }
    }
}

impl<T> Cell<T> {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Readable(entry) => entry.key(),
            Self::Unreadable(error) => match &**error {
                StoreError::Undecodable { key, .. } => key,
                _ => "",
            },
        }
    }

    pub(super) fn revision(&self) -> u64 {
        match self {
            Self::Readable(entry) => entry.revision,
            Self::Unreadable(error) => match **error {
                StoreError::Undecodable { revision, .. } => revision,
                _ => 0,
            },
        }
    }
}

#[derive(Debug)]
pub(super) struct Map<T> {
    root: Node<T>,
    readable: usize,
    unreadable: usize,
    seed: u64,
}

#[derive(Debug)]
enum Node<T> {
    Empty,
    Leaf(Arc<Vec<(u64, Cell<T>)>>),
    Branch(Arc<[Node<T>; WIDTH]>),
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Leaf(cells) => Self::Leaf(cells.clone()),
            Self::Branch(nodes) => Self::Branch(nodes.clone()),
        }
    }
}

impl<T> Clone for Map<T> {
    fn clone(&self) -> Self {
        Self {
            root: self.root.clone(),
            ..*self
        }
    }
}

impl<T> Map<T> {
    pub(super) fn new() -> Self {
        Self {
            root: Node::Empty,
            readable: 0,
            unreadable: 0,
            // From the system: whoever chooses keys cannot choose which of them meet.
            seed: RandomState::new().hash_one(0) | 1,
        }
    }

    pub(super) fn readable(&self) -> usize {
        self.readable
    }

    pub(super) fn unreadable(&self) -> usize {
        self.unreadable
    }

    pub(super) fn get(&self, key: &str) -> Option<&Cell<T>> {
        let hash = hash(key, self.seed);
        let mut rest = hash;
        let mut node = &self.root;
        loop {
            match node {
                Node::Empty => return None,
                Node::Branch(nodes) => {
                    node = nodes.get(index(rest))?;
                    rest >>= BITS;
                }
                Node::Leaf(cells) => {
                    let same = |(it, cell): &&(u64, Cell<T>)| *it == hash && cell.key() == key;
                    return cells.iter().find(same).map(|(_, cell)| cell);
                }
            }
        }
    }

    pub(super) fn insert(&mut self, cell: Cell<T>) {
        self.count(&cell, 1);
        let hash = hash(cell.key(), self.seed);
        if let Some(before) = insert(&mut self.root, hash, 0, cell) {
            self.count(&before, -1);
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> bool {
        // Looking first: a node that is not changed is not to be copied.
        if self.get(key).is_none() {
            return false;
        }
        let hash = hash(key, self.seed);
        if let Some(before) = remove(&mut self.root, hash, 0, key) {
            self.count(&before, -1);
        }
        true
    }

    fn count(&mut self, cell: &Cell<T>, change: isize) {
        let count = match cell {
            Cell::Readable(_) => &mut self.readable,
            Cell::Unreadable(_) => &mut self.unreadable,
        };
        *count = count.saturating_add_signed(change);
    }

    pub(super) fn iter(&self) -> Iter<'_, T> {
        Iter {
            nodes: vec![&self.root],
            cells: [].iter(),
        }
    }
}

fn index(rest: u64) -> usize {
    rest as usize % WIDTH
}

fn insert<T>(node: &mut Node<T>, hash: u64, depth: u32, cell: Cell<T>) -> Option<Cell<T>> {
    let cells = match node {
        Node::Empty => {
            *node = Node::Leaf(Arc::new(vec![(hash, cell)]));
            return None;
        }
        Node::Branch(nodes) => {
            let below = Arc::make_mut(nodes).get_mut(index(hash >> (depth * BITS)))?;
            return insert(below, hash, depth + 1, cell);
        }
        Node::Leaf(cells) => Arc::make_mut(cells),
    };
    let same = |(it, there): &&mut (u64, Cell<T>)| *it == hash && there.key() == cell.key();
    if let Some((_, there)) = cells.iter_mut().find(same) {
        return Some(std::mem::replace(there, cell));
    }
    cells.push((hash, cell));
    if cells.len() > LEAF && (depth + 1) * BITS <= u64::BITS {
        let mut leaves: [Vec<(u64, Cell<T>)>; WIDTH] = std::array::from_fn(|_| Vec::new());
        for (hash, cell) in std::mem::take(cells) {
            if let Some(leaf) = leaves.get_mut(index(hash >> (depth * BITS))) {
                leaf.push((hash, cell));
            }
        }
        *node = Node::Branch(Arc::new(leaves.map(|cells| match cells.is_empty() {
            true => Node::Empty,
            false => Node::Leaf(Arc::new(cells)),
        })));
    }
    None
}

/// Empty leaves go, branches stay: keys that come and go find them again.
fn remove<T>(node: &mut Node<T>, hash: u64, depth: u32, key: &str) -> Option<Cell<T>> {
    match node {
        Node::Empty => None,
        Node::Branch(nodes) => {
            let below = Arc::make_mut(nodes).get_mut(index(hash >> (depth * BITS)))?;
            remove(below, hash, depth + 1, key)
        }
        Node::Leaf(cells) => {
            let cells = Arc::make_mut(cells);
            let at = cells
                .iter()
                .position(|(it, cell)| *it == hash && cell.key() == key)?;
            let (_, removed) = cells.swap_remove(at);
            if cells.is_empty() {
                *node = Node::Empty;
            }
            Some(removed)
        }
    }
}

/// Everything, in no order.
#[derive(Debug)]
pub(super) struct Iter<'m, T> {
    nodes: Vec<&'m Node<T>>,
    cells: std::slice::Iter<'m, (u64, Cell<T>)>,
}

impl<'m, T> Iterator for Iter<'m, T> {
    type Item = &'m Cell<T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((_, cell)) = self.cells.next() {
                return Some(cell);
            }
            match self.nodes.pop()? {
                Node::Empty => {}
                Node::Leaf(cells) => self.cells = cells.iter(),
                Node::Branch(nodes) => self.nodes.extend(nodes.iter()),
            }
        }
    }
}

/// Multiplication to twice the width, both halves of it: fast on short keys, and different for every seed.
fn hash(key: &str, seed: u64) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let (words, rest) = key.as_bytes().as_chunks::<8>();
    let mut state = fold(seed ^ key.len() as u64, MULTIPLIER);
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), MULTIPLIER ^ seed);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    fold(state ^ u64::from_le_bytes(last), MULTIPLIER)
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
