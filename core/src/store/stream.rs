//! One bucket's stream: the few JetStream requests that the stores are made of.
//!
//! It knows subjects and sequences, and nothing of keys, values or objects. Requests go through the connection's own
//! inbox; one that times out leaves about 350 bytes behind in async-nats 0.51. What only asks is asked again while nobody
//! answers.

mod repeat;
#[cfg(test)]
mod tests;

pub(crate) use repeat::{back_off, repeated};

use super::bucket::Storage;
use super::error::{Refusal, StoreError, other};
use crate::wire::spec::StoreKind;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageBuilder, RawMessageErrorKind};
use async_nats::jetstream::{Context, message};
use async_nats::{HeaderMap, Statistics, StatusCode};
use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::BTreeMap;
use std::fmt;
use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// A handle on the stream of one bucket; cheap to clone.
#[derive(Clone)]
pub(crate) struct Stream {
    pub(crate) js: Context,
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    bucket: String,
    /// Direct get was answered by nobody, and the request to the leader was answered: the bucket is without.
    no_direct: AtomicBool,
    /// Multi-get was tried, and is not there.
    no_multi: AtomicBool,
    /// What was asked beside a consumer was not answered.
    unanswered: AtomicBool,
    /// Somebody was told that flow control is not heard.
    told_of_flow_control: AtomicBool,
    /// The connection's.
    statistics: Arc<Statistics>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.name)
    }
}

/// A message as the stream has it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
    pub(crate) created: SystemTime,
}

impl From<message::StreamMessage> for Stored {
    fn from(message: message::StreamMessage) -> Self {
        Self {
            subject: message.subject.into_string(),
            sequence: message.sequence,
            headers: message.headers,
            payload: message.payload,
            created: message.time.into(),
        }
    }
}

/// What `STREAM.INFO` says, as far as the stores use it.
#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) config: StreamConfig,
    pub(crate) state: StreamState,
    /// When the stream was made; another time means another stream of the same name.
    pub(crate) created: String,
    #[serde(default)]
    pub(crate) cluster: Option<Cluster>,
}

/// Where a stream or a consumer is.
#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct Cluster {
    /// The name of the server that leads it, or of the only one that has it.
    #[serde(default)]
    pub(crate) leader: String,
}

impl StreamInfo {
    /// Whether somebody leads the stream, as far as the server knows that told this: one that has lost the others answers, too.
    pub(crate) fn has_leader(&self) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_none_or(|cluster| !cluster.leader.is_empty())
    }

    /// Whether what is there is on the server that leads the stream, and told this.
    pub(crate) fn leads(&self, there: Option<&Cluster>) -> bool {
        let leader = self.cluster.as_ref().map(|cluster| &cluster.leader);
        leader.is_some_and(|leader| !leader.is_empty())
            && leader == there.map(|cluster| &cluster.leader)
    }
}

#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct StreamConfig {
    #[serde(default)]
    pub(crate) max_msgs_per_subject: i64,
    #[serde(default)]
    pub(crate) max_age: u64,
    #[serde(default)]
    pub(crate) max_bytes: i64,
    #[serde(default)]
    pub(crate) num_replicas: u8,
    #[serde(default)]
    pub(crate) storage: String,
    #[serde(default)]
    pub(crate) compression: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) sealed: bool,
    #[serde(default)]
    pub(crate) mirror: Option<Mirror>,
    #[serde(default)]
    pub(crate) allow_msg_ttl: bool,
    /// Batches that are stored whole or not at all.
    #[serde(default)]
    pub(crate) allow_atomic: bool,
    /// Batches that are acknowledged by the hundred: fast ingest.
    #[serde(default)]
    pub(crate) allow_batched: bool,
    #[serde(default)]
    subject_delete_marker_ttl: u64,
    #[serde(default)]
    pub(crate) max_msg_size: i64,
    #[serde(default)]
    pub(crate) allow_direct: bool,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Where a mirror takes its messages from.
#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct Mirror {
    name: String,
    #[serde(default)]
    external: Option<External>,
}

#[derive(Debug, Clone, serde::Deserialize)]
struct External {
    #[serde(default)]
    api: String,
}

impl Mirror {
    /// The bucket of the origin, if that is a KV bucket.
    pub(crate) fn bucket(&self) -> &str {
        let bucket = self.name.strip_prefix(prefix(StoreKind::Kv));
        bucket.unwrap_or(&self.name)
    }

    /// The prefix under which the origin's API is reached, for one from another domain or account.
    pub(crate) fn api(&self) -> Option<&str> {
        let api = self.external.as_ref().map(|external| &*external.api);
        api.filter(|api| !api.is_empty())
    }
}

#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct StreamState {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    #[serde(default)]
    pub(crate) num_subjects: u64,
    #[serde(default)]
    pub(crate) consumer_count: u64,
}

impl StreamConfig {
    pub(crate) fn ttl(&self) -> Option<Duration> {
        (self.max_age > 0).then(|| Duration::from_nanos(self.max_age))
    }

    /// How long the marker stays that the server leaves where it removes what has expired; `None` where it leaves none.
    pub(crate) fn limit_markers(&self) -> Option<Duration> {
        let stay = self.subject_delete_marker_ttl;
        (stay > 0).then(|| Duration::from_nanos(stay))
    }

    pub(crate) fn max_bytes(&self) -> Option<u64> {
        u64::try_from(self.max_bytes)
            .ok()
            .filter(|&bytes| bytes > 0)
    }

    pub(crate) fn storage(&self) -> Storage {
        match self.storage.as_str() {
            "memory" => Storage::Memory,
            _ => Storage::File,
        }
    }

    pub(crate) fn compressed(&self) -> bool {
        self.compression == "s2"
    }
}

/// What stands before a bucket's name in that of its stream.
pub(crate) const fn prefix(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::Kv => "KV_",
        StoreKind::Object => "OBJ_",
    }
}

/// A duration as JetStream's configurations have it.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `[A-Za-z0-9_-]+`, and short enough for a stream's name.
pub(crate) fn check_bucket(bucket: &str) -> Result<(), StoreError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    // The server takes stream names of up to 255 bytes, prefix included.
    if bucket.is_empty() || bucket.len() > 250 || !bucket.bytes().all(legal) {
        return Err(StoreError::BucketName {
            bucket: bucket.chars().take(100).collect(),
        });
    }
    Ok(())
}

impl Stream {
    /// The stream of this bucket. Nothing is sent.
    pub(crate) fn new(js: Context, kind: StoreKind, bucket: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                name: format!("{}{bucket}", prefix(kind)),
                bucket: bucket.to_owned(),
                no_direct: AtomicBool::new(false),
                no_multi: AtomicBool::new(false),
                unanswered: AtomicBool::new(false),
                told_of_flow_control: AtomicBool::new(false),
                statistics: js.client().statistics(),
            }),
            js,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.inner.bucket
    }

    /// Whether a question that makes a reading faster is not worth asking: one was not answered.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.inner.unanswered.load(Ordering::Relaxed)
    }

    pub(crate) fn note_unanswered(&self) {
        self.inner.unanswered.store(true, Ordering::Relaxed);
    }

    /// The connection's statistics, which are the same for all that use it.
    pub(crate) fn statistics(&self) -> &Arc<Statistics> {
        &self.inner.statistics
    }

    /// How often the connection was made.
    pub(crate) fn connects(&self) -> u64 {
        self.statistics().connects.load(Ordering::Relaxed)
    }

    /// Whether to say that flow control is not heard: once for all the readers of a handle and its clones.
    pub(crate) fn warn_of_flow_control(&self) -> bool {
        !self
            .inner
            .told_of_flow_control
            .swap(true, Ordering::Relaxed)
    }

    /// A request of the JSON API, sent once: for what changes something.
    pub(crate) async fn request<V: DeserializeOwned>(
        &self,
        subject: String,
        body: &(impl Serialize + Sync),
    ) -> Result<V, Refusal> {
        match self.js.request(subject, body).await? {
            Response::Ok(answer) => Ok(answer),
            Response::Err { error } => Err((&error).into()),
        }
    }

    /// A request of the JSON API that changes nothing, sent again while nobody answers.
    pub(crate) async fn query<V: DeserializeOwned>(
        &self,
        subject: String,
        body: &(impl Serialize + Sync),
    ) -> Result<V, Refusal> {
        repeated(|| self.request(subject.clone(), body)).await
    }

    /// Settings and state, from the server.
    pub(crate) async fn info(&self) -> Result<StreamInfo, StoreError> {
        let subject = format!("STREAM.INFO.{}", self.name());
        self.query(subject, &serde_json::json!({}))
            .await
            .map_err(|refusal| refusal.about(self.bucket()))
    }

    /// The subjects of this filter that have messages, and how many, as the leader knows them; and the stream's last sequence
    /// there, at the first look.
    pub(crate) async fn subjects(
        &self,
        filter: &str,
    ) -> Result<(BTreeMap<String, u64>, u64), StoreError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            state: State,
            #[serde(default)]
            total: usize,
        }
        #[derive(serde::Deserialize)]
        struct State {
            last_seq: u64,
            #[serde(default)]
            subjects: Option<BTreeMap<String, u64>>,
        }
        let (mut found, mut seen) = (BTreeMap::new(), None);
        // The server gives a hundred thousand at a time.
        loop {
            let subject = format!("STREAM.INFO.{}", self.name());
            let body = serde_json::json!({ "subjects_filter": filter, "offset": found.len() });
            let answer: Result<Answer, Refusal> = self.query(subject, &body).await;
            let Answer { state, total } = answer.map_err(|refusal| refusal.about(self.bucket()))?;
            let seen = *seen.get_or_insert(state.last_seq);
            let before = found.len();
            found.extend(state.subjects.unwrap_or_default());
            if found.len() >= total || found.len() == before {
                return Ok((found, seen));
            }
        }
    }

    /// The level of the server's JetStream API, by which it says what it can; 0 before 2.11.
    pub(crate) async fn api_level(&self) -> Result<u64, StoreError> {
        let account: Result<serde_json::Value, Refusal> =
            self.query("INFO".to_owned(), &serde_json::json!({})).await;
        let account = account.map_err(|refusal| refusal.about(self.bucket()))?;
        Ok(account["api"]["level"].as_u64().unwrap_or(0))
    }

    /// The last message of this subject.
    pub(crate) async fn last(&self, subject: &str) -> Result<Option<Stored>, StoreError> {
        self.get(None, subject).await
    }

    /// The message of this sequence, if it is of this subject.
    pub(crate) async fn at(
        &self,
        sequence: u64,
        subject: &str,
    ) -> Result<Option<Stored>, StoreError> {
        self.get(Some(sequence), subject).await
    }

    /// The last message of this subject, as the leader has it.
    pub(crate) async fn leaders_last(&self, subject: &str) -> Result<Option<Stored>, StoreError> {
        self.ask_leader(None, subject).await
    }

    /// The message of this sequence, if it is of this subject, as the leader has it.
    pub(crate) async fn leaders_at(
        &self,
        sequence: u64,
        subject: &str,
    ) -> Result<Option<Stored>, StoreError> {
        self.ask_leader(Some(sequence), subject).await
    }

    /// The first message of this subject from this sequence on, as the leader has it.
    pub(crate) async fn leaders_next(
        &self,
        from: u64,
        subject: &str,
    ) -> Result<Option<Stored>, StoreError> {
        let stream = self.js.get_stream_no_info(self.name()).await;
        let stream = stream.map_err(|error| other(&error))?;
        let request = || stream.raw_message_builder().sequence(from);
        self.leaders(|| request().next_by_subject(subject)).await
    }

    /// Whether multi-get was tried, and is not there.
    pub(crate) fn lacks_multi(&self) -> bool {
        self.inner.no_multi.load(Ordering::Relaxed) || self.inner.no_direct.load(Ordering::Relaxed)
    }

    pub(crate) fn note_no_multi(&self) {
        self.inner.no_multi.store(true, Ordering::Relaxed);
    }

    /// From any replica; from the leader where the bucket has no direct get.
    async fn get(
        &self,
        sequence: Option<u64>,
        subject: &str,
    ) -> Result<Option<Stored>, StoreError> {
        if sequence == Some(0) {
            return Ok(None);
        }
        if !self.inner.no_direct.load(Ordering::Relaxed) {
            let stream = self.js.get_stream_no_info(self.name()).await;
            let stream = stream.map_err(|error| other(&error))?;
            let found = repeated(|| async {
                match sequence {
                    Some(sequence) => stream.direct_get(sequence).await,
                    None => stream.direct_get_last_for_subject(subject).await,
                }
            });
            let error = match found.await {
                Ok(message) => return Ok(Some(message.into()).filter(of(subject))),
                Err(error) => error,
            };
            match error.kind() {
                DirectGetErrorKind::NotFound => return Ok(None),
                DirectGetErrorKind::TimedOut => return Err(StoreError::Timeout),
                // Nobody answers: direct get is off, or the bucket is missing. The leader knows.
                DirectGetErrorKind::ErrorResponse(StatusCode::NO_RESPONDERS, _) => {}
                _ => return Err(other(&error)),
            }
        }
        let found = self.ask_leader(sequence, subject).await?;
        self.inner.no_direct.store(true, Ordering::Relaxed);
        Ok(found)
    }

    async fn ask_leader(
        &self,
        sequence: Option<u64>,
        subject: &str,
    ) -> Result<Option<Stored>, StoreError> {
        let stream = self.js.get_stream_no_info(self.name()).await;
        let stream = stream.map_err(|error| other(&error))?;
        if sequence == Some(0) {
            return Ok(None);
        }
        let request = || match (stream.raw_message_builder(), sequence) {
            (request, Some(sequence)) => request.sequence(sequence),
            (request, None) => request.last_by_subject(subject),
        };
        Ok(self.leaders(request).await?.filter(of(subject)))
    }

    async fn leaders(
        &self,
        request: impl Fn() -> RawMessageBuilder,
    ) -> Result<Option<Stored>, StoreError> {
        match repeated(|| request().send()).await {
            Ok(message) => Ok(Some(message.into())),
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(None),
                RawMessageErrorKind::JetStream(refused) => {
                    Err(Refusal::from(&refused).about(self.bucket()))
                }
                _ => Err(request_failed(&error).about(self.bucket())),
            },
        }
    }

    /// Sends a message; the future that comes back is the acknowledgement.
    pub(crate) async fn send(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<PublishAckFuture, Refusal> {
        let mut message = PublishMessage::build().payload(payload);
        if !headers.is_empty() {
            message = message.headers(headers);
        }
        Ok(self.js.send_publish(subject, message).await?)
    }

    /// Publishes, and waits for the acknowledgement: the sequence.
    pub(crate) async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<u64, Refusal> {
        let ack = self.send(subject, headers, payload).await?;
        Ok(ack.into_future().await?.sequence)
    }

    /// Purges the messages of this subject.
    pub(crate) async fn purge(&self, subject: &str) -> Result<(), StoreError> {
        let what = serde_json::json!({ "filter": subject });
        self.purge_all_of(&what).await
    }

    /// Purges the messages of this subject up to this sequence, itself included.
    pub(crate) async fn purge_through(
        &self,
        subject: &str,
        sequence: u64,
    ) -> Result<(), StoreError> {
        let what = serde_json::json!({ "filter": subject, "seq": sequence + 1 });
        self.purge_all_of(&what).await
    }

    async fn purge_all_of(&self, what: &serde_json::Value) -> Result<(), StoreError> {
        let request = format!("STREAM.PURGE.{}", self.name());
        let purged: Result<IgnoredAny, Refusal> = self.request(request, what).await;
        purged
            .map(drop)
            .map_err(|refusal| refusal.about(self.bucket()))
    }

    /// Has a consumer deleted. Nobody waits for the answer: one whose deletion gets lost is removed for its inactivity.
    pub(crate) fn delete_consumer(&self, name: &str) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let subject = format!("CONSUMER.DELETE.{}.{name}", self.name());
        let js = self.js.clone();
        runtime.spawn(async move {
            let _ = js.send_request(subject, async_nats::Request::new()).await;
        });
    }

    /// Why a publish found nobody: tells a missing bucket from a missing JetStream.
    pub(crate) async fn explain(&self, refusal: Refusal) -> StoreError {
        match refusal {
            Refusal::NoResponders => match self.info().await {
                Err(error @ StoreError::BucketNotFound { .. }) => error,
                Ok(info) if info.config.mirror.is_some() => {
                    let origin = info.config.mirror.map(|mirror| mirror.bucket().to_owned());
                    StoreError::Mirror {
                        bucket: self.bucket().to_owned(),
                        origin: origin.unwrap_or_default(),
                    }
                }
                _ => Refusal::NoResponders.about(self.bucket()),
            },
            refusal => refusal.about(self.bucket()),
        }
    }
}

/// Whether a message is of this subject.
fn of(subject: &str) -> impl Fn(&Stored) -> bool {
    move |stored| stored.subject == subject
}

/// The reason under an error that async-nats wraps once more.
fn request_failed(error: &(dyn std::error::Error + 'static)) -> Refusal {
    use async_nats::jetstream::context::{RequestError, RequestErrorKind};
    let cause = error
        .source()
        .and_then(|source| source.downcast_ref::<RequestError>());
    match cause.map(RequestError::kind) {
        Some(RequestErrorKind::TimedOut) => Refusal::Other(StoreError::Timeout),
        Some(RequestErrorKind::NoResponders) => Refusal::NoResponders,
        _ => Refusal::Other(other(&error)),
    }
}

/// The prefix of the context's API where it is not the usual one: a domain's, or that of an import from another account.
///
/// async-nats 0.51 keeps it to itself, and writes to a bucket have to go under it (ADR-19): it is read off the context's
/// debug form, and a test sees to it that it is there.
pub(crate) fn api_prefix(js: &Context) -> Option<String> {
    let debug = format!("{js:?}");
    // No text of the server's can look like that: a quotation mark within a string has a backslash before it.
    let (_, prefix) = debug.split_once(", prefix: \"")?;
    let (prefix, _) = prefix.split_once('"')?;
    (prefix != "$JS.API").then(|| prefix.to_owned())
}
