//! When all has come that the leader had: what proves it, where a consumer reads a replica that may be behind.
//!
//! A heartbeat of the consumer does, but it takes a while to come. So others are asked meanwhile: any replica that has all that the
//! leader had, whether anything follows what has come; or the leader itself, where nothing has come, whether anything is there.

use super::restart::REPLICA_HEARTBEATS;
use super::{Initial, OrderedConsumer, Start};
use crate::store::error::StoreError;
use crate::store::multi::{Ask, Multi};

impl OrderedConsumer {
    /// Whether what the consumer reads has all the initial messages. One of a replicated stream is made on any of its
    /// servers, which may lag behind the leader, by far and for long, and has nothing more to bring then.
    pub(super) fn has_it_all(&self) -> bool {
        let Some(live) = &self.live else { return false };
        let proven = if live.led { live.floor } else { live.reached };
        !self.replicated || self.options.start == Start::New || proven >= self.initial_end
    }

    /// Whether the consumer has nothing more to bring, and others are to be asked whether that is all.
    pub(super) fn in_doubt(&self) -> bool {
        self.initial == Initial::Coming && self.live.as_ref().is_some_and(|live| live.drained)
    }

    /// Asks others, once for what has come. Without an answer that proves it a heartbeat has to.
    pub(super) async fn ask_others(&mut self) {
        if let Some(live) = &mut self.live {
            live.drained = false;
        }
        // By then a heartbeat has come.
        let wait = self.options.heartbeat / REPLICA_HEARTBEATS;
        match tokio::time::timeout(wait, self.is_all()).await {
            Ok(Ok(true)) => {
                self.initial = Initial::Over;
                self.covered = self.covered.max(self.initial_end);
            }
            Ok(_) => {}
            // Whoever lacks the right is not answered at all, and what is denied is told to the user: once is enough.
            Err(_) => self.stream.note_unanswered(),
        }
    }

    /// Whether others say that nothing follows what has come, up to where the leader was.
    async fn is_all(&self) -> Result<bool, StoreError> {
        let filters = &self.options.filters;
        if self.position == 0 {
            // A replica that has none of these does not say how far it is.
            for filter in filters {
                let (found, seen) = self.stream.subjects(filter).await?;
                if !found.is_empty() || seen < self.initial_end {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        if self.stream.is_unanswered() {
            return Ok(false);
        }
        // The last that has come is asked for as well, so that there is an answer which says how far the replica is.
        let ask = Ask {
            subjects: filters,
            from: self.position,
        };
        let Multi::Part(part) = self.stream.multi(ask).await? else {
            return Ok(false);
        };
        let nothing_newer = !part.more
            && part
                .messages
                .iter()
                .all(|message| message.sequence <= self.position);
        Ok(nothing_newer && part.seen.is_some_and(|seen| seen >= self.initial_end))
    }
}
