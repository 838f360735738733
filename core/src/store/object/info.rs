//! The metadata of an object: as users see it, and as it stands on the wire.

use super::super::bucket::Storage;
use super::super::error::StoreError;
use super::super::stream::{Stored, Stream, StreamInfo};
use super::content::is_content;
use crate::wire::header::CONTENT_TYPE;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// The longest name, as it stands in a subject: far from the server's control line of 4 KiB.
const MAX_ENCODED_NAME: usize = 1024;

/// Refuses a name before anything is uploaded under it.
pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if encoded(name).len() > MAX_ENCODED_NAME {
        "it is longer than 768 bytes"
    } else {
        return Ok(());
    };
    Err(StoreError::ObjectName {
        name: name.chars().take(100).collect(),
        reason,
    })
}

fn encoded(name: &str) -> String {
    URL_SAFE.encode(name)
}

pub(super) fn meta_subject(bucket: &str, name: &str) -> String {
    format!("$O.{bucket}.M.{}", encoded(name))
}

pub(super) fn chunk_subject(bucket: &str, nuid: &str) -> String {
    format!("$O.{bucket}.C.{nuid}")
}

/// What is known of an object besides its bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// The bucket that it is in.
    pub bucket: String,
    /// The identity of this version of it; an overwritten object has another.
    pub nuid: String,
    /// Bytes.
    pub size: u64,
    /// The messages that these bytes are in.
    pub chunks: u64,
    /// `SHA-256=` and the digest in padded base64url; `None` for a deleted object.
    pub digest: Option<String>,
    /// When the server stored it.
    pub modified: SystemTime,
    /// The revision of its metadata, which is the bucket's sequence.
    pub revision: u64,
    /// Headers that its writer set; `Content-Type` says the codec of a typed value.
    pub headers: HeaderMap,
    /// Free pairs.
    pub metadata: BTreeMap<String, String>,
    /// What it is for.
    pub description: Option<String>,
    /// It was deleted, and only this is left of it.
    pub deleted: bool,
    /// It has no bytes of its own: they are those of another object.
    pub link: Option<ObjectLink>,
    /// What its writer says that no chunk is larger than.
    pub(super) chunk_size: Option<u64>,
}

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObjectLink {
    /// The bucket.
    pub bucket: String,
    /// The object in it; `None` for the bucket as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What is said of an object besides its bytes.
///
/// ```
/// let mut meta = nats_service::ObjectMeta::default();
/// meta.description = Some("the minutes of a meeting".into());
/// meta.metadata.insert("room".into(), "4".into());
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ObjectMeta {
    /// What it is for.
    pub description: Option<String>,
    /// Headers; `Content-Type` says the codec of a typed value.
    pub headers: HeaderMap,
    /// Free pairs.
    pub metadata: BTreeMap<String, String>,
}

impl ObjectInfo {
    /// The `Content-Type` that it was stored with.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE).map(HeaderValue::as_str)
    }

    /// Its description, headers and free pairs.
    #[must_use]
    pub fn meta(&self) -> ObjectMeta {
        ObjectMeta {
            description: self.description.clone(),
            headers: self.headers.clone(),
            metadata: self.metadata.clone(),
        }
    }

    /// Whether its bytes are stored once for all names that have them: see [`Upload::shared`](crate::Upload::shared).
    #[must_use]
    pub fn is_shared(&self) -> bool {
        let name = self.link.as_ref().and_then(|link| link.name.as_deref());
        name.is_some_and(is_content)
    }
}

/// ADR-20's metadata. What other clients add and this one does not know is kept for as long as the object is not overwritten.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) headers: Option<BTreeMap<String, Values>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) options: Option<MetaOptions>,
    #[serde(default)]
    pub(super) bucket: String,
    #[serde(default)]
    pub(super) nuid: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) chunks: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) deleted: bool,
    #[serde(flatten)]
    pub(super) rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct MetaOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<ObjectLink>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_chunk_size: Option<u64>,
    #[serde(flatten)]
    pub(super) rest: BTreeMap<String, serde_json::Value>,
}

/// The values of a header. ADR-20 has a list; Python's users write a single text, and it reaches the wire as that.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Values {
    Many(Vec<String>),
    One(String),
}

impl Values {
    fn into_vec(self) -> Vec<String> {
        match self {
            Values::Many(values) => values,
            Values::One(value) => vec![value],
        }
    }
}

fn is_empty(headers: &Option<BTreeMap<String, Values>>) -> bool {
    headers.as_ref().is_none_or(BTreeMap::is_empty)
}

impl Meta {
    /// With this said of it, in place of what was.
    pub(super) fn described(mut self, meta: &ObjectMeta) -> Self {
        let pairs = meta.headers.iter().map(|(name, values)| {
            let values = values.iter().map(|value| value.as_str().to_owned());
            (name.to_string(), Values::Many(values.collect()))
        });
        self.headers = Some(pairs.collect());
        self.description = meta.description.clone();
        self.metadata = Some(meta.metadata.clone()).filter(|pairs| !pairs.is_empty());
        self
    }

    /// What is left of an object that is deleted.
    pub(super) fn deleted(bucket: &str, info: &ObjectInfo) -> Self {
        Self {
            name: info.name.clone(),
            bucket: bucket.to_owned(),
            nuid: info.nuid.clone(),
            deleted: true,
            ..Self::default()
        }
        .described(&info.meta())
    }

    pub(super) fn into_info(self, revision: u64, modified: SystemTime) -> ObjectInfo {
        let mut headers = HeaderMap::new();
        for (name, values) in self.headers.unwrap_or_default() {
            for value in values.into_vec() {
                // Read from the network: what is no header is left out.
                if let (Ok(name), Ok(value)) =
                    (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
                {
                    headers.append(name, value);
                }
            }
        }
        let options = self.options.unwrap_or_default();
        ObjectInfo {
            name: self.name,
            bucket: self.bucket,
            nuid: self.nuid,
            size: self.size,
            chunks: self.chunks,
            digest: self.digest.filter(|digest| !digest.is_empty()),
            modified,
            revision,
            headers,
            metadata: self.metadata.unwrap_or_default(),
            description: self.description.filter(|text| !text.is_empty()),
            deleted: self.deleted,
            link: options.link,
            chunk_size: options.max_chunk_size,
        }
    }
}

/// The name that a metadata subject is for.
fn name_in(subject: &str) -> Option<String> {
    let (_, encoded) = subject.rsplit_once('.')?;
    String::from_utf8(URL_SAFE.decode(encoded).ok()?).ok()
}

/// The metadata in a message of the bucket.
///
/// The name is that of the subject: it is where the object is found and what permissions are about, whatever its writer says
/// in the body. The body's is the last resort, for clients that write no UTF-8 into subjects.
pub(super) fn parse(stored: &Stored) -> Result<ObjectInfo, StoreError> {
    match serde_json::from_slice::<Meta>(&stored.payload) {
        Ok(mut meta) => {
            meta.name = name_in(&stored.subject).unwrap_or(meta.name);
            Ok(meta.into_info(stored.sequence, stored.created))
        }
        Err(error) => Err(StoreError::Digest {
            name: stored.subject.clone(),
            reason: format!("its metadata cannot be read: {error}"),
        }),
    }
}

/// The metadata of this name, deleted or not, as it is now.
pub(super) async fn fetch(stream: &Stream, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
    let stored = stream.last(&meta_subject(stream.bucket(), name)).await?;
    // A message without a body is a marker that the server left in place of an expired one.
    let stored = stored.filter(|stored| !stored.payload.is_empty());
    stored.as_ref().map(parse).transpose()
}

/// How an object store stands, at the moment it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectStatus {
    /// What all objects take, in bytes, metadata included.
    pub bytes: u64,
    /// How long an object lives; `None` for ever.
    pub ttl: Option<Duration>,
    /// Copies.
    pub replicas: u8,
    /// Where the server keeps it.
    pub storage: Storage,
    /// Whether it is compressed.
    pub compressed: bool,
    /// Nothing in it can change any more.
    pub sealed: bool,
    /// The bucket's bound, in bytes.
    pub max_bytes: Option<u64>,
    /// What it is for.
    pub description: Option<String>,
    /// Messages: a chunk is one, and so is each object's metadata, deleted ones included.
    pub messages: u64,
}

impl ObjectStatus {
    /// How full it is, between 0 and 1; `None` where it has no bound.
    #[must_use]
    pub fn full(&self) -> Option<f64> {
        let max = self.max_bytes?;
        Some(self.bytes as f64 / max as f64)
    }
}

impl From<StreamInfo> for ObjectStatus {
    fn from(info: StreamInfo) -> Self {
        let StreamInfo { config, state, .. } = info;
        Self {
            bytes: state.bytes,
            ttl: config.ttl(),
            replicas: config.num_replicas,
            storage: config.storage(),
            compressed: config.compressed(),
            sealed: config.sealed,
            max_bytes: config.max_bytes(),
            description: config.description,
            messages: state.messages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_text_that_fits_a_subject() {
        for name in ["a", "a b", "../x", "ünï/コード", "*.>", &"x".repeat(768)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", &"x".repeat(769)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert_eq!(meta_subject("b", "a b?"), "$O.b.M.YSBiPw==");
    }

    #[test]
    fn metadata_of_other_clients_is_read_and_its_bad_headers_passed_over() {
        let meta: Meta = serde_json::from_str(
            r#"{"name":"a","bucket":"b","nuid":"n","size":3,"mtime":"0001-01-01T00:00:00Z","chunks":1,
                "digest":"SHA-256=x","headers":{"Content-Type":["application/json"],"X:":["a\r\nb"],"One":"1"},"new":1}"#,
        )
        .unwrap();
        let info = meta.into_info(1, SystemTime::UNIX_EPOCH);
        assert_eq!(info.content_type(), Some("application/json"));
        assert_eq!((info.size, info.headers.len(), info.deleted), (3, 2, false));
    }
}
