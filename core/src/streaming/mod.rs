//! What keeps a stream in order and within bounds, the same for both of its ends.
//!
//! NATS itself may lose a message: a subscriber is too slow, a connection breaks. So each end numbers what it sends and keeps
//! it until the other has it; the receiver says how much it will take, asks for what is missing, and both say from time to
//! time that they are there. `outgoing` and `incoming` are those rules, without I/O and told the time; `inlet` is what waits
//! for its reader; `inbox` brings messages to their streams; `session` puts it together.
//!
//! Left out: how a stream is asked for and by whom, which `client` and `service` know, and what its items mean.

mod inbox;
mod incoming;
mod inlet;
mod outgoing;
mod session;

pub(crate) use inbox::{Inbox, Mailbox, head, is_inbox, write};
pub(crate) use inlet::{Broken, Inlet, Last, Reader};
pub(crate) use session::{Ended, Line, Produced, Role, Session, Source};

use crate::wire::frame::Amount;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// How many signs of life may fail to come before the peer counts as lost.
const SILENT_BEATS: u32 = 5;
/// The slowest and the fastest that a caller may ask for.
const BEATS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// How much of one stream may be under way or unread, where nobody says otherwise. A hundred streams of one connection
/// then stay well below the 64 MiB at which a server gives a slow connection up.
pub(crate) const WINDOW: Amount = Amount {
    items: 1024,
    bytes: 256 << 10,
};
/// A receiver acknowledges after so much at the latest, even where it would take far more.
const ACKNOWLEDGE: Amount = Amount {
    items: 512,
    bytes: 128 << 10,
};

/// How often an end that is silent says that it is there, and for how long it believes in a peer that is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) beat: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self::of(Duration::from_secs(2))
    }
}

impl Pace {
    pub(crate) fn of(beat: Duration) -> Self {
        Self {
            beat: beat.clamp(BEATS.0, BEATS.1),
        }
    }

    /// What a caller's `open` asks for.
    pub(crate) fn of_millis(beat: u64) -> Self {
        match beat {
            0 => Self::default(),
            beat => Self::of(Duration::from_millis(beat)),
        }
    }

    pub(crate) fn millis(self) -> u64 {
        u64::try_from(self.beat.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn silence(self) -> Duration {
        self.beat * SILENT_BEATS
    }
}

/// Items of streams, and streams, as they are counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) open: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// Why a stream ended before its end, where neither the service nor its caller wanted it.
///
/// ```
/// # use nats_service::{CallError, StreamBreak};
/// fn worth_another_try(error: &CallError) -> bool {
///     matches!(error, CallError::Broken { why: StreamBreak::Silent { .. } | StreamBreak::Forgotten, .. })
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamBreak {
    /// Nothing was heard of the other side: it has died, or the connection is broken for too long.
    #[error("nothing was heard of the other side for {after:?}")]
    Silent {
        /// For how long.
        after: Duration,
    },
    /// Items were lost on the way, and the other side did not send them again.
    #[error("items are missing after message {after}, and did not come again in {waited:?}")]
    Gap {
        /// The last message that came in order.
        after: u64,
        /// How long it was asked for the next.
        waited: Duration,
    },
    /// The other side does not know the stream any more.
    #[error("the other side has given the stream up")]
    Forgotten,
    /// The other side does not keep to the protocol of streams.
    #[error("the other side does not speak the protocol of streams: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The connection was closed.
    #[error("the connection was closed")]
    Closed,
    /// The stream of requests panicked.
    #[error("the stream of requests panicked")]
    Panicked,
}
