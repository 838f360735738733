//! Who reads from the shared consumer, found by what each of them wants: a message costs those whom it reaches, however many
//! there are.

use super::super::filter::matches;
use super::super::stream::Stored;
use super::Wants;
use super::slot::Slot;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) slot: Arc<Slot>,
    pub(super) wants: Wants,
    /// Its messages come from here; else it only wants them to.
    pub(super) active: bool,
    /// It has everything up to this sequence.
    pub(super) after: u64,
}

impl Member {
    pub(super) fn is_reached_by(&self, stored: &Stored) -> bool {
        let subject = stored.subject.as_str();
        let matched = |filter: &String| matches(filter, subject);
        // The reader's own consumer may have been ahead of the shared one.
        stored.sequence > self.after && self.wants.filters.iter().any(matched)
    }
}

/// The address of its slot, which stands for a member as long as that is one.
type Id = usize;

fn id(slot: &Arc<Slot>) -> Id {
    Arc::as_ptr(slot) as Id
}

#[derive(Debug, Default)]
pub(super) struct Members {
    all: BTreeMap<Id, Member>,
    /// Those that want single subjects only, by each of these.
    by_subject: HashMap<String, BTreeSet<Id>>,
    /// Those that have a filter with a wildcard.
    others: BTreeSet<Id>,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds one that is not active yet, or makes it so again.
    pub(super) fn insert(&mut self, slot: &Arc<Slot>, wants: &Wants) {
        self.remove(slot);
        let id = id(slot);
        if wants
            .filters
            .iter()
            .any(|filter| filter.contains(['*', '>']))
        {
            self.others.insert(id);
        } else {
            for subject in &wants.filters {
                self.by_subject
                    .entry(subject.clone())
                    .or_default()
                    .insert(id);
            }
        }
        let member = Member {
            slot: slot.clone(),
            wants: wants.clone(),
            active: false,
            after: 0,
        };
        self.all.insert(id, member);
    }

    pub(super) fn remove(&mut self, slot: &Arc<Slot>) -> Option<Member> {
        let id = id(slot);
        let member = self.all.remove(&id)?;
        if !self.others.remove(&id) {
            for subject in &member.wants.filters {
                if let Some(readers) = self.by_subject.get_mut(subject) {
                    readers.remove(&id);
                    if readers.is_empty() {
                        self.by_subject.remove(subject);
                    }
                }
            }
        }
        Some(member)
    }

    pub(super) fn get(&self, slot: &Arc<Slot>) -> Option<&Member> {
        self.all.get(&id(slot))
    }

    pub(super) fn get_mut(&mut self, slot: &Arc<Slot>) -> Option<&mut Member> {
        self.all.get_mut(&id(slot))
    }

    /// What all of them want, in an order that depends on nothing but who they are.
    pub(super) fn filters(&self) -> impl Iterator<Item = &str> {
        let filters = self.all.values().flat_map(|member| &member.wants.filters);
        filters.map(String::as_str)
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Member> {
        self.all.values().filter(|member| member.active)
    }

    /// Those that are to get this message.
    pub(super) fn reached_by(&self, stored: &Stored) -> impl Iterator<Item = &Member> {
        let subject = self.by_subject.get(stored.subject.as_str());
        let ids = subject.into_iter().flatten().chain(&self.others);
        let members = ids.filter_map(|id| self.all.get(id));
        members.filter(|member| member.active && member.is_reached_by(stored))
    }
}
