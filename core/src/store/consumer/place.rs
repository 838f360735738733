//! Where a delivered message stands in its stream and in its consumer.

use std::time::{Duration, SystemTime};

/// Where a message stands, as its reply subject says (ADR-15): nine tokens, or eleven and more with the domain and the
/// account.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stream_sequence: u64,
    pub(super) consumer_sequence: u64,
    pub(super) created: SystemTime,
    pub(super) pending: u64,
}

impl Place {
    pub(super) fn parse(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let skip = match rest.split('.').count() {
            7 => 3,
            9.. => 5,
            _ => return None,
        };
        let mut numbers = rest.split('.').skip(skip).map(str::parse::<u64>);
        let mut number = || numbers.next()?.ok();
        Some(Self {
            stream_sequence: number()?,
            consumer_sequence: number()?,
            created: SystemTime::UNIX_EPOCH + Duration::from_nanos(number()?),
            pending: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_reply_subject_are_read() {
        let place = Place {
            stream_sequence: 100,
            consumer_sequence: 7,
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            pending: 42,
        };
        let short = Place::parse("$JS.ACK.s.c.3.100.7.1000000000.42");
        assert_eq!(short.as_ref(), Some(&place));
        let long = Place::parse("$JS.ACK.hub.hash.s.c.3.100.7.1000000000.42.more");
        assert_eq!(long.as_ref(), Some(&place));
        assert_eq!(Place::parse("$JS.ACK.s.c.3.100.7.1000000000"), None);
        assert_eq!(Place::parse("_INBOX.x"), None);
    }
}
