//! What stands under a key of a cache, and how it is written.
//!
//! An answer is an ordinary entry, so that typed stores, and clients of any language, read it. What is no answer (an error that is
//! kept, a claim of a flight) is a delete marker that carries more than usual: for them there is no value.

use crate::store::is_put;
use crate::store::persist::Conditional;
use crate::store::stream::Stored;
use crate::wire::codec::{Codec, CodecError};
use crate::wire::error::Error;
use crate::wire::header;
use bytes::Bytes;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An answer, encoded.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) body: Bytes,
    pub(super) codec: Codec,
    pub(super) created: SystemTime,
}

/// What a flight landed with.
#[derive(Debug, Clone)]
pub(super) enum Shared {
    Value(Bytes, Codec),
    Failed(Error),
}

#[derive(Debug)]
pub(super) enum Held {
    Nothing,
    Value(Value),
    Failure(Error, SystemTime),
    /// Somebody calls the handler, or has tried to; and what there was before it.
    Claim {
        free: bool,
        carried: Option<Value>,
        renewed: SystemTime,
    },
}

/// A key's last message.
#[derive(Debug)]
pub(super) struct Seen {
    /// 0 when there is none.
    pub(super) revision: u64,
    pub(super) held: Held,
}

const ERROR: &str = "error";
const CLAIM: &str = "claim";
const FREE: &str = "free";

impl Seen {
    /// `codec` is what an entry is written in that does not say it.
    pub(super) fn read(stored: Option<Stored>, codec: Codec) -> Self {
        let Some(stored) = stored else {
            return Self {
                revision: 0,
                held: Held::Nothing,
            };
        };
        Self {
            revision: stored.sequence,
            held: held(stored, codec),
        }
    }
}

fn held(stored: Stored, codec: Codec) -> Held {
    let headers = &stored.headers;
    let said = headers.get(header::CONTENT_TYPE);
    let codec = said
        .and_then(|said| codec.or_named(said.as_str()))
        .unwrap_or(codec);
    let value = |created| Value {
        body: stored.payload.clone(),
        codec,
        created,
    };
    if is_put(headers) {
        return Held::Value(value(stored.created));
    }
    let kind = headers.get(header::CACHE).map(|kind| kind.as_str());
    match kind {
        Some(ERROR) => match Codec::Json.decode(&stored.payload) {
            Ok(error) => Held::Failure(error, stored.created),
            Err(_) => Held::Nothing,
        },
        Some(kind @ (CLAIM | FREE)) => {
            let millis = headers.get(header::CACHE_TIME);
            let millis = millis.and_then(|millis| millis.as_str().parse().ok());
            let created = millis.map(|millis| UNIX_EPOCH + Duration::from_millis(millis));
            Held::Claim {
                free: kind == FREE,
                carried: created.map(value),
                renewed: stored.created,
            }
        }
        _ => Held::Nothing,
    }
}

/// An answer.
pub(super) fn put(expected: u64, body: Bytes) -> Conditional {
    Conditional {
        expected,
        body,
        marker: false,
        headers: Vec::new(),
    }
}

/// An error that is kept.
pub(super) fn failure(expected: u64, error: &Error) -> Result<Conditional, CodecError> {
    Ok(Conditional {
        expected,
        body: Codec::Json.encode(error)?,
        marker: true,
        headers: vec![(header::CACHE, ERROR.to_owned())],
    })
}

/// A claim, or the end of one; an answer that is no longer fresh is not lost by it.
pub(super) fn claim(expected: u64, free: bool, carried: Option<&Value>) -> Conditional {
    let kind = if free { FREE } else { CLAIM };
    let mut headers = vec![(header::CACHE, kind.to_owned())];
    let mut body = Bytes::new();
    if let Some(value) = carried {
        let millis = value.created.duration_since(UNIX_EPOCH).unwrap_or_default();
        headers.push((header::CACHE_TIME, millis.as_millis().to_string()));
        body = value.body.clone();
    }
    Conditional {
        expected,
        body,
        marker: true,
        headers,
    }
}

/// Whether a body says "nothing": what `None` is written as.
pub(super) fn is_nothing(body: &[u8], codec: Codec) -> bool {
    match codec {
        Codec::Json => body == b"null",
        #[cfg(feature = "msgpack")]
        Codec::MessagePack => body == [0xc0],
        #[cfg(feature = "codecs")]
        codec => codec
            .encode(&None::<()>)
            .is_ok_and(|nothing| nothing == body),
    }
}

/// How long ago that was; nothing for a time that is still to come, by a clock that is ahead.
pub(super) fn age(of: SystemTime) -> Duration {
    SystemTime::now().duration_since(of).unwrap_or_default()
}
