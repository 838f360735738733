//! One flight a key: who calls the handler, and who waits for what comes of it. No I/O, and no time: a follower waits for as
//! long as its own call has.
//!
//! A flight is of a key *at a revision*. Whoever looks after an eviction sees another revision, and does not get what was begun
//! before it.

use super::entry::Shared;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A key, and its last revision as it was seen; `None` where it could not be.
type Id = (Arc<str>, Option<u64>);
type Outcome = watch::Receiver<Option<Shared>>;
type Map = HashMap<Id, Outcome>;

/// The flights of one cache.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights {
    map: Arc<Mutex<Map>>,
}

enum Role {
    Lead(Flight),
    Follow(Outcome),
}

/// What became of joining.
pub(super) enum Joined {
    /// Call the handler. `stranded` when another was to, and ended without an outcome: cancelled, out of time, panicked.
    Lead { flight: Flight, stranded: bool },
    /// Another one has.
    Landed(Shared),
}

/// The right to call the handler, until it is dropped; what it landed with is handed out as long.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Flights,
    ids: Vec<Id>,
    outcome: watch::Sender<Option<Shared>>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Map> {
        // Nothing in here is left half done by a panic.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lead, or waits for who has it; and takes it when that one is gone.
    pub(super) async fn lead_or_wait(&self, key: &Arc<str>, revision: Option<u64>) -> Joined {
        let mut stranded = false;
        loop {
            match self.join(key, revision) {
                Role::Lead(flight) => return Joined::Lead { flight, stranded },
                Role::Follow(mut outcome) => {
                    let landed = outcome.wait_for(Option::is_some).await;
                    if let Some(shared) = landed.ok().and_then(|landed| landed.clone()) {
                        return Joined::Landed(shared);
                    }
                    stranded = true;
                }
            }
        }
    }

    fn join(&self, key: &Arc<str>, revision: Option<u64>) -> Role {
        let id = (Arc::clone(key), revision);
        let mut map = self.lock();
        if let Some(outcome) = map.get(&id) {
            return Role::Follow(outcome.clone());
        }
        let (outcome, receiver) = watch::channel(None);
        map.insert(id.clone(), receiver);
        Role::Lead(Flight {
            flights: self.clone(),
            ids: vec![id],
            outcome,
        })
    }
}

impl Flight {
    /// It has itself made a revision that others may see: they are to follow it as well.
    pub(super) fn also(&mut self, revision: u64) {
        let Some((key, _)) = self.ids.first() else {
            return;
        };
        let id = (Arc::clone(key), Some(revision));
        let mut map = self.flights.lock();
        if !map.contains_key(&id) {
            map.insert(id.clone(), self.outcome.subscribe());
            self.ids.push(id);
        }
    }

    /// Tells the others.
    pub(super) fn land(&self, shared: Shared) {
        self.outcome.send_replace(Some(shared));
    }
}

impl Drop for Flight {
    /// Out of the map first: those who learn that it ended without an outcome join again.
    fn drop(&mut self) {
        let mut map = self.flights.lock();
        for id in &self.ids {
            map.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn failed(text: &str) -> Shared {
        Shared::Failed(Error::internal(text))
    }

    fn lead(role: Role) -> Flight {
        match role {
            Role::Lead(flight) => flight,
            Role::Follow(_) => panic!("somebody else leads"),
        }
    }

    fn follow(role: Role) -> Outcome {
        match role {
            Role::Follow(outcome) => outcome,
            Role::Lead(_) => panic!("nobody leads"),
        }
    }

    #[tokio::test]
    async fn one_leads_and_the_others_have_what_it_lands_with() {
        let flights = Flights::default();
        let key: Arc<str> = "a".into();
        let first = lead(flights.join(&key, Some(1)));
        let mut second = follow(flights.join(&key, Some(1)));
        first.land(failed("x"));
        // Who comes before the write has ended has it at once.
        let mut third = follow(flights.join(&key, Some(1)));
        drop(first);
        for outcome in [&mut second, &mut third] {
            assert!(outcome.wait_for(Option::is_some).await.is_ok());
        }
        lead(flights.join(&key, Some(1)));
    }

    #[tokio::test]
    async fn a_leader_that_is_gone_strands_nobody() {
        let flights = Flights::default();
        let key: Arc<str> = "a".into();
        let first = lead(flights.join(&key, None));
        let second = flights.lead_or_wait(&key, None);
        let gone = async { drop(first) };
        match tokio::join!(second, gone).0 {
            Joined::Lead { flight, stranded } => {
                assert!(stranded);
                drop(flight);
            }
            Joined::Landed(_) => panic!("nothing was landed with"),
        }
        assert!(flights.lock().is_empty());
    }

    #[test]
    fn another_revision_is_another_flight_unless_the_flight_made_it() {
        let flights = Flights::default();
        let key: Arc<str> = "a".into();
        let mut first = lead(flights.join(&key, Some(1)));
        let second = lead(flights.join(&key, Some(2)));
        first.also(3);
        first.also(2);
        follow(flights.join(&key, Some(3)));
        drop(first);
        follow(flights.join(&key, Some(2)));
        drop(second);
        assert!(flights.lock().is_empty());
    }
}
