//! What a revision of a key is: a value, or a mark that there is none.

use super::super::error::StoreError;
use super::super::stream::Stored;
use crate::wire::codec::{Codec, CodecError};
use crate::wire::header::CONTENT_TYPE;
use async_nats::HeaderMap;
use serde::de::DeserializeOwned;
use std::time::SystemTime;

/// A value as the bucket has it.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_key_value(nats_service::async_nats::jetstream::kv::Config { bucket: "ports".into(), ..Default::default() }).await?;
/// let store = nats_service::KvStore::<u16>::bind(js, "ports")?;
/// let revision = store.key("http")?.put(&80).await?;
/// let entry = store.key("http")?.get().await?.ok_or("gone")?;
/// assert_eq!((entry.key(), *entry.value(), entry.revision), ("http", 80, revision));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry<T> {
    key: String,
    value: T,
    /// The revision, which is the bucket's sequence: it grows with every write to any key.
    pub revision: u64,
    /// When the server stored it.
    pub created: SystemTime,
    /// The headers that it was written with.
    pub headers: HeaderMap,
}

impl<T> Entry<T> {
    /// The whole key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The value, and nothing else.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }
}

/// One change of one key: what a watch brings, and what a history is made of.
#[derive(Debug)]
#[non_exhaustive]
pub struct Change<T> {
    /// The whole key.
    pub key: String,
    /// The revision that the change made.
    pub revision: u64,
    /// When the server stored it.
    pub created: SystemTime,
    /// How many changes are known to follow; 0 for the newest.
    pub delta: u64,
    /// What happened.
    pub operation: Operation<T>,
}

impl<T> Change<T> {
    /// The new value, unless the change took the value away.
    #[must_use]
    pub fn value(&self) -> Option<&T> {
        match &self.operation {
            Operation::Put(value) => Some(value),
            _ => None,
        }
    }

    /// The same, by value.
    #[must_use]
    pub fn into_value(self) -> Option<T> {
        match self.operation {
            Operation::Put(value) => Some(value),
            _ => None,
        }
    }
}

/// What a change did.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operation<T> {
    /// A value was written.
    Put(T),
    /// The key was deleted; older revisions are kept.
    Delete,
    /// The key was purged, older revisions and all; or it expired.
    Purge,
    /// Only in a history: a value was written that is none of this type. A watch has an error item for it.
    Unreadable(CodecError),
}

/// What a message of a bucket is, by its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Delete,
    Purge,
}

impl Kind {
    /// ADR-8: any operation but `PUT` means that there is no value, known or not. The server's own markers have a reason
    /// in place of the operation.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match named(headers, "KV-Operation") {
            Some("PUT") => return Kind::Put,
            Some("PURGE") => return Kind::Purge,
            Some(_) => return Kind::Delete,
            None => {}
        }
        match named(headers, "Nats-Marker-Reason") {
            Some("MaxAge" | "Purge") => Kind::Purge,
            Some(_) => Kind::Delete,
            None => Kind::Put,
        }
    }
}

/// The value of a header. Every look-up in the map allocates the name and hashes it, for every entry and every watch; there are
/// few headers, so that reading them all costs less.
fn named<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.iter();
    let (_, values) = all.find(|(there, _)| AsRef::<str>::as_ref(*there) == name)?;
    values.first().map(|value| value.as_str())
}

/// Whether a message of a bucket is a value, and no marker.
pub(crate) fn is_put(headers: &HeaderMap) -> bool {
    Kind::of(headers) == Kind::Put
}

/// The headers of an entry in this codec.
pub(crate) fn entry_headers(codec: Codec) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, codec.content_type());
    headers
}

/// The headers that a writer set: the server's and those of the protocol (`Nats-..`, `KV-Operation`) left out.
pub(super) fn own_headers(headers: &HeaderMap) -> HeaderMap {
    let mut own = HeaderMap::new();
    for (name, values) in headers.iter() {
        let text: &str = name.as_ref();
        let protocol = text
            .get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case("nats-"));
        if protocol || text == "KV-Operation" {
            continue;
        }
        for value in values {
            own.append(name.clone(), value.clone());
        }
    }
    own
}

/// Decodes by what the entry says of itself, or else by `codec`.
pub(super) fn decode<T: DeserializeOwned>(stored: &Stored, codec: Codec) -> Result<T, CodecError> {
    codec.decode_named(named(&stored.headers, CONTENT_TYPE), &stored.payload)
}

impl<T: DeserializeOwned> Entry<T> {
    /// The entry; `None` when it marks a deletion.
    pub(super) fn read(
        key: &str,
        stored: &Stored,
        codec: Codec,
    ) -> Result<Option<Self>, StoreError> {
        if Kind::of(&stored.headers) != Kind::Put {
            return Ok(None);
        }
        match decode(stored, codec) {
            Ok(value) => Ok(Some(Self {
                key: key.to_owned(),
                value,
                revision: stored.sequence,
                created: stored.created,
                headers: own_headers(&stored.headers),
            })),
            Err(source) => Err(undecodable(key, stored, source)),
        }
    }
}

pub(super) fn undecodable(key: &str, stored: &Stored, source: CodecError) -> StoreError {
    StoreError::Undecodable {
        key: key.to_owned(),
        revision: stored.sequence,
        source,
    }
}

impl<T: DeserializeOwned> Change<T> {
    /// The change, whose operation is `Unreadable` where the value is.
    pub(super) fn read(key: &str, stored: &Stored, delta: u64, codec: Codec) -> Self {
        Self::read_by(decode, key, stored, delta, codec)
    }
}

/// How the value of a stored message is had.
pub(super) type Decode<T> = fn(&Stored, Codec) -> Result<T, CodecError>;

impl<T> Change<T> {
    /// The same, by another way to the value.
    pub(super) fn read_by(
        decode: Decode<T>,
        key: &str,
        stored: &Stored,
        delta: u64,
        codec: Codec,
    ) -> Self {
        let operation = match Kind::of(&stored.headers) {
            Kind::Delete => Operation::Delete,
            Kind::Purge => Operation::Purge,
            Kind::Put => decode(stored, codec).map_or_else(Operation::Unreadable, Operation::Put),
        };
        Self {
            key: key.to_owned(),
            revision: stored.sequence,
            created: stored.created,
            delta,
            operation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(pairs: &[(&str, &str)]) -> Kind {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, *value);
        }
        Kind::of(&headers)
    }

    #[test]
    fn any_operation_but_put_and_every_marker_means_that_there_is_no_value() {
        assert_eq!(kind(&[]), Kind::Put);
        assert_eq!(kind(&[("KV-Operation", "PUT")]), Kind::Put);
        assert_eq!(kind(&[("KV-Operation", "DEL")]), Kind::Delete);
        assert_eq!(kind(&[("KV-Operation", "PURGE")]), Kind::Purge);
        assert_eq!(kind(&[("KV-Operation", "NEW")]), Kind::Delete);
        assert_eq!(kind(&[("Nats-Marker-Reason", "MaxAge")]), Kind::Purge);
        assert_eq!(kind(&[("Nats-Marker-Reason", "Purge")]), Kind::Purge);
        assert_eq!(kind(&[("Nats-Marker-Reason", "Remove")]), Kind::Delete);
    }

    #[test]
    fn headers_of_the_protocol_are_not_the_writers() {
        let mut headers = entry_headers(Codec::Json);
        headers.insert("Nats-Sequence", "7");
        headers.insert("nats-ttl", "1s");
        headers.insert("X-Trace", "a");
        let own = own_headers(&headers);
        assert_eq!(own.len(), 2);
        assert!(own.get("X-Trace").is_some() && own.get(CONTENT_TYPE).is_some());
    }
}
