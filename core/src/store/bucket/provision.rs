//! Making, checking or changing a bucket when a service starts, by the rule of its [`Provision`].
//!
//! Several instances may start at once: whoever finds the name taken reads it again and compares, as if it had been
//! there from the start. What a cluster refuses or leaves unanswered because it is busy electing is asked again, for a
//! while.

use super::settings::{Difference, FAST_INGEST};
use super::{BucketSettings, Provision};
use crate::store::kv::Layout;
use crate::wire::spec::StoreKind;
use async_nats::client::RequestErrorKind as ClientRequestErrorKind;
use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::{HeaderMap, Request};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::Instant;

/// Older servers lost whole streams when they were killed.
const MIN_SERVER: (u64, u64, u64) = (2, 10, 23);
/// The first server with fast ingest.
const FAST_INGEST_SINCE: (u64, u64, u64) = (2, 14, 0);
/// How long a new replicated bucket may take to choose its leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(15);
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// How long a cluster that is short of something may take to get over it: it has just started, say, or is busy.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it may leave a request without an answer. A stream that somebody else is making answers nothing before it
/// has a leader, and a request that the user may not publish never.
const UNANSWERED: u32 = 3;

const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

const STREAM_NOT_FOUND: u64 = 10059;
const INVALID_JSON: u64 = 10025;
const STREAM_NAME_EXIST: u64 = 10058;
const CLUSTER_NO_PEERS: u64 = 10005;
/// The cluster has no leader, or the one that was asked is no more.
const CLUSTER_NOT_AVAILABLE: [u64; 2] = [10008, 10009];
const JETSTREAM_NOT_ENABLED: [u64; 2] = [10076, 10039];

/// A bucket is not there, or not as it is wanted, and the service does not start.
///
/// ```no_run
/// # fn example(error: nats_service::ProvisionError) {
/// if let nats_service::ProvisionError::Differs { differences, .. } = &error {
///     for difference in differences {
///         eprintln!("{difference}");
///     }
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The settings contradict the rules of buckets.
    #[error("bucket `{bucket}` cannot have `{setting}`: {reason}")]
    Setting {
        /// The bucket.
        bucket: String,
        /// The setting.
        setting: &'static str,
        /// What is wrong with it, and what to say instead.
        reason: String,
    },
    /// The server is too old for a setting, which it would drop without a word.
    #[error(
        "bucket `{bucket}` cannot have `{setting}` on this server: its JetStream API is of level {level}, and it needs level {needed}, nats-server {} or later",
        match *.needed { 0 | 1 => "2.11", 2 => "2.12", _ => "2.14" }
    )]
    OldApi {
        /// The bucket.
        bucket: String,
        /// The setting.
        setting: &'static str,
        /// What the server says of itself; 0 where it says nothing.
        level: u64,
        /// What the setting needs.
        needed: u64,
    },
    /// It has other settings than are named for it.
    #[error("bucket `{bucket}` is not as its attribute, or `BucketSettings`, says: {}. Either change what is said, or say `provision = \"update\"` (`Provision::Update`) to change just these settings on the server, or `provision = \"warn\"` (`Provision::Warn`) to go on all the same", list(.differences))]
    Differs {
        /// The bucket.
        bucket: String,
        /// Each setting, in the order in which they are named.
        differences: Vec<Difference>,
    },
    /// It does not exist, and `provision = "none"` makes none.
    #[error(
        "bucket `{bucket}` does not exist, and `provision = \"none\"` does not make it: create it first (stream `{stream}`), or leave `provision` out"
    )]
    Missing {
        /// The bucket.
        bucket: String,
        /// Its stream.
        stream: String,
    },
    /// The server, or this account, has no JetStream.
    #[error(
        "no JetStream for bucket `{bucket}`: {reason}. Start the server with JetStream (`nats-server -js`), enable it for this account, or check the context's domain or API prefix"
    )]
    NoJetStream {
        /// The bucket.
        bucket: String,
        /// What the server said.
        reason: String,
    },
    /// No answer.
    #[error(
        "no answer to `{subject}` for bucket `{bucket}`. A request that the user may not publish is dropped without a word: check that it may publish `{subject}` and subscribe to its inbox (the connection's event callback tells), and that the JetStream cluster has a leader"
    )]
    TimedOut {
        /// The bucket.
        bucket: String,
        /// The request's subject, below the API's prefix.
        subject: String,
    },
    /// The server refused.
    #[error("bucket `{bucket}`: the server refused `{action}`: {description} (error code {code})")]
    Refused {
        /// The bucket.
        bucket: String,
        /// What was asked.
        action: &'static str,
        /// The server's error code.
        code: u64,
        /// The server's text.
        description: String,
    },
    /// The server is too old to keep answers on.
    #[error(
        "the server is version {version}: streams were lost on a kill before 2.10.23. Update it, to 2.12.3 or later best"
    )]
    OldServer {
        /// What it says of itself.
        version: String,
    },
    /// A new bucket has no leader.
    #[error(
        "bucket `{bucket}` was made and has no leader yet: are enough servers of the cluster up for its replicas?"
    )]
    NoLeader {
        /// The bucket.
        bucket: String,
    },
    /// The stream of that name is no bucket.
    #[error("`{stream}` is not the stream of a bucket: {reason}")]
    NoBucket {
        /// The stream.
        stream: String,
        /// Why.
        reason: String,
    },
    /// Something else.
    #[error("bucket `{bucket}`: {source}")]
    Other {
        /// The bucket.
        bucket: String,
        /// What.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn list(differences: &[Difference]) -> String {
    let mut text = String::new();
    for (i, difference) in differences.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        // Writing into a `String` does not fail.
        let _ = write!(text, "{comma}{difference}");
    }
    text
}

/// A bucket that is there, and how to write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provisioned {
    pub(crate) kind: StoreKind,
    /// The bucket's name.
    pub(crate) name: String,
    /// It was made just now, by this process.
    pub(crate) created: bool,
    /// Revisions kept of a key, as the server has it; -1 for an object store.
    pub(crate) history: i64,
    /// What stands before the key in the subject of a put: `$KV.<bucket>.`, or the origin's for a mirror.
    pub(crate) put_prefix: String,
    /// The put's subject goes below the context's API prefix: a domain, or an import from another account.
    pub(crate) through_api: bool,
    /// It takes many writes in one batch.
    pub(crate) fast_ingest: bool,
}

impl Provisioned {
    /// Whether an older value is gone as soon as there is a newer one.
    pub(crate) fn keeps_only_the_last(&self) -> bool {
        self.kind == StoreKind::Object || self.history == 1
    }
}

/// Makes sure of a bucket.
///
/// # Errors
/// See [`ProvisionError`]; nothing was changed then, but that the bucket may have been made.
pub(crate) async fn provision(
    js: &Context,
    kind: StoreKind,
    settings: &BucketSettings,
) -> Result<Provisioned, ProvisionError> {
    make(js, kind, settings).await.map(|(bound, _)| bound)
}

/// The same, with the configuration that was found or made.
pub(crate) async fn make(
    js: &Context,
    kind: StoreKind,
    settings: &BucketSettings,
) -> Result<(Provisioned, Value), ProvisionError> {
    settings.check()?;
    check_version(&js.client().server_info().version)?;
    let api = Api {
        js,
        kind,
        settings,
        stream: settings.stream_name(kind),
    };
    let deadline = Instant::now() + PATIENCE;
    let (mut unanswered, mut made) = (0, Made::Before);
    loop {
        let error = match api.provision(&mut made).await {
            Ok(bound) => return Ok(bound),
            Err(error) => error,
        };
        match passing(&error) {
            Some(Passing::Unanswered) => unanswered += 1,
            Some(Passing::Refused) => {}
            None => return Err(error),
        }
        if unanswered >= UNANSWERED || Instant::now() >= deadline {
            return Err(error);
        }
        tracing::debug!(bucket = settings.name, %error, "the bucket is asked for once more");
        // What was left without an answer may have been done.
        made = made.max(Made::Meanwhile);
        tokio::time::sleep(LEADER_PAUSE).await;
    }
}

/// Whose work a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Made {
    /// It was there.
    Before,
    /// Somebody's, while this start went on.
    Meanwhile,
    /// This start's.
    Now,
}

/// What may be otherwise in a moment.
enum Passing {
    Unanswered,
    Refused,
}

fn passing(error: &ProvisionError) -> Option<Passing> {
    match error {
        ProvisionError::TimedOut { .. } => Some(Passing::Unanswered),
        ProvisionError::Refused {
            code, description, ..
        } => {
            // "no suitable peers for placement, peer offline": a peer counts as that when its sign of life is late.
            let offline = *code == CLUSTER_NO_PEERS && description.contains("offline");
            // Taken and not found: it is about to be there, or to be gone.
            let between = *code == STREAM_NAME_EXIST;
            (offline || between || CLUSTER_NOT_AVAILABLE.contains(code)).then_some(Passing::Refused)
        }
        _ => None,
    }
}

/// A bucket as one start sees it.
struct Api<'a> {
    js: &'a Context,
    kind: StoreKind,
    settings: &'a BucketSettings,
    stream: String,
}

impl Api<'_> {
    /// Everything once. It may be repeated: what was done is found again.
    async fn provision(&self, made: &mut Made) -> Result<(Provisioned, Value), ProvisionError> {
        let mut info = match self.info().await? {
            Some(info) => info,
            None if self.settings.provision == Provision::None => {
                return Err(ProvisionError::Missing {
                    bucket: self.settings.name.clone(),
                    stream: self.stream.clone(),
                });
            }
            None => {
                let (info, created) = self.create().await?;
                *made = if created { Made::Now } else { Made::Meanwhile };
                info
            }
        };
        if *made != Made::Now
            && let Some(changed) = self.reconcile(&info["config"]).await?
        {
            info["config"] = changed;
        }
        let new_in_cluster = *made != Made::Before && info["cluster"].is_object();
        if new_in_cluster {
            self.wait_for_leader().await?;
        }
        let config = info["config"].take();
        let bound = self.bind(*made == Made::Now, &config)?;
        if new_in_cluster && !bound.through_api && !config["mirror"].is_object() {
            self.wait_for_interest().await;
        }
        Ok((bound, config))
    }

    /// The answer, or the code and the text of the server's error.
    async fn request(
        &self,
        action: &'static str,
        body: &Value,
    ) -> Result<Result<Value, (u64, String)>, ProvisionError> {
        let subject = format!("{action}.{}", self.stream);
        self.ask(subject, body).await
    }

    async fn ask(
        &self,
        subject: String,
        body: &Value,
    ) -> Result<Result<Value, (u64, String)>, ProvisionError> {
        let bucket = || self.settings.name.clone();
        let answer: Result<Value, _> = self.js.request(subject.clone(), body).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => ProvisionError::TimedOut {
                bucket: bucket(),
                subject: format!("$JS.API.{subject}"),
            },
            RequestErrorKind::NoResponders => ProvisionError::NoJetStream {
                bucket: bucket(),
                reason: "nobody answers its API".to_owned(),
            },
            _ => ProvisionError::Other {
                bucket: bucket(),
                source: Box::new(error),
            },
        })?;
        let error = &answer["error"];
        if !error.is_object() {
            return Ok(Ok(answer));
        }
        let code = error["err_code"].as_u64().unwrap_or(0);
        let description = error["description"].as_str().unwrap_or("no reason given");
        if JETSTREAM_NOT_ENABLED.contains(&code) {
            return Err(ProvisionError::NoJetStream {
                bucket: bucket(),
                reason: description.to_owned(),
            });
        }
        Ok(Err((code, description.to_owned())))
    }

    fn refused(&self, action: &'static str, (code, description): (u64, String)) -> ProvisionError {
        ProvisionError::Refused {
            bucket: self.settings.name.clone(),
            action,
            code,
            description,
        }
    }

    async fn info(&self) -> Result<Option<Value>, ProvisionError> {
        match self.request("STREAM.INFO", &json!({})).await? {
            Ok(info) => Ok(Some(info)),
            Err((STREAM_NOT_FOUND, _)) => Ok(None),
            Err(error) => Err(self.refused("STREAM.INFO", error)),
        }
    }

    /// Asks the server for its API level, not its version, where a setting needs one.
    async fn check_level(&self) -> Result<(), ProvisionError> {
        let Some((setting, needed)) = self.settings.needs_level() else {
            return Ok(());
        };
        let account = self.ask("INFO".to_owned(), &json!({})).await?;
        let account = account.map_err(|error| self.refused("INFO", error))?;
        match account["api"]["level"].as_u64().unwrap_or(0) {
            level if level < needed => Err(ProvisionError::OldApi {
                bucket: self.settings.name.clone(),
                setting,
                level,
                needed,
            }),
            _ => Ok(()),
        }
    }

    /// Makes the bucket, unless somebody else just has.
    async fn create(&self) -> Result<(Value, bool), ProvisionError> {
        self.check_level().await?;
        let mut config = self.settings.new_stream(self.kind);
        let version = &self.js.client().server_info().version;
        let unsaid = config[FAST_INGEST.field].is_null() && !config["mirror"].is_object();
        let offered = version_of(version) >= Some(FAST_INGEST_SINCE);
        let unasked = self.kind == StoreKind::Kv && unsaid && offered;
        if unasked {
            config[FAST_INGEST.field] = json!(true);
        }
        let mut answer = self.request("STREAM.CREATE", &config).await?;
        if unasked && matches!(answer, Err((INVALID_JSON, _))) {
            // The cluster has an older server, too, which does not know it; and nobody asked for it.
            config[FAST_INGEST.field].take();
            answer = self.request("STREAM.CREATE", &config).await?;
        }
        match answer {
            Ok(info) => Ok((info, true)),
            Err(error @ (STREAM_NAME_EXIST, _)) => match self.info().await? {
                Some(info) => Ok((info, false)),
                None => Err(self.refused("STREAM.CREATE", error)),
            },
            Err(error) => Err(self.refused("STREAM.CREATE", error)),
        }
    }

    /// Compares a bucket that was there with what is named, and does what `provision` says: what it is like now, where that
    /// was changed.
    async fn reconcile(&self, config: &Value) -> Result<Option<Value>, ProvisionError> {
        let differences = self.settings.differences(config);
        if differences.is_empty() {
            return Ok(None);
        }
        let bucket = &self.settings.name;
        match self.settings.provision {
            Provision::None => Ok(None),
            Provision::Create => Err(ProvisionError::Differs {
                bucket: bucket.clone(),
                differences,
            }),
            Provision::Warn => {
                let differences = list(&differences);
                tracing::warn!(bucket, %differences, "the bucket is not as its attribute, or `BucketSettings`, says");
                Ok(None)
            }
            Provision::Update => {
                self.check_level().await?;
                let mut config = config.clone();
                self.settings.apply(&mut config);
                match self.request("STREAM.UPDATE", &config).await? {
                    Ok(mut changed) => {
                        let differences = list(&differences);
                        tracing::info!(bucket, %differences, "the bucket was changed to what its attribute says");
                        Ok(Some(changed["config"].take()))
                    }
                    Err(error) => Err(self.refused("STREAM.UPDATE", error)),
                }
            }
        }
    }

    /// A replicated stream answers `not found` to writes until it has a leader.
    async fn wait_for_leader(&self) -> Result<(), ProvisionError> {
        let deadline = Instant::now() + LEADER_TIMEOUT;
        loop {
            // What an election answers with, or does not answer at all, means "not yet" here.
            if let Ok(Some(info)) = self.info().await
                && info["cluster"]["leader"]
                    .as_str()
                    .is_some_and(|leader| !leader.is_empty())
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ProvisionError::NoLeader {
                    bucket: self.settings.name.clone(),
                });
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    /// The leader is there, but the server of this connection may not have heard yet that somebody takes the bucket's
    /// subjects, and would answer a write with "no responders". A message that expects another stream finds out: the
    /// stream refuses it before it stores anything.
    ///
    /// Only a courtesy to whoever writes without retrying, so it gives up quietly.
    async fn wait_for_interest(&self) {
        let subject = match self.kind {
            StoreKind::Kv => format!("$KV.{}.probe", self.settings.name),
            StoreKind::Object => format!("$O.{}.M.probe", self.settings.name),
        };
        let client = self.js.client();
        let deadline = Instant::now() + LEADER_TIMEOUT;
        while Instant::now() < deadline {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_STREAM, "none");
            let request = Request::new().headers(headers).timeout(Some(PROBE_TIMEOUT));
            match client.send_request(subject.clone(), request).await {
                Err(error) if error.kind() == ClientRequestErrorKind::NoResponders => {
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
                _ => return,
            }
        }
    }

    fn bind(&self, created: bool, config: &Value) -> Result<Provisioned, ProvisionError> {
        let name = &self.settings.name;
        let mut bound = Provisioned {
            kind: self.kind,
            name: name.clone(),
            created,
            history: -1,
            put_prefix: String::new(),
            through_api: false,
            fast_ingest: config[FAST_INGEST.field] == true,
        };
        if self.kind == StoreKind::Object {
            return Ok(bound);
        }
        let history = config["max_msgs_per_subject"].as_i64().unwrap_or(-1);
        if history < 1 {
            return Err(ProvisionError::NoBucket {
                stream: self.stream.clone(),
                reason: format!("it keeps no history (max_msgs_per_subject = {history})"),
            });
        }
        let layout = Layout::of_config(name, config);
        bound.history = history;
        bound.put_prefix = layout.put_prefix();
        bound.through_api = layout.through_api(self.js);
        Ok(bound)
    }
}

/// The numbers of a version; none for a server that hides it.
fn version_of(version: &str) -> Option<(u64, u64, u64)> {
    let mut numbers = version
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    Some((next()?, next()?, next()?))
}

fn check_version(version: &str) -> Result<(), ProvisionError> {
    // A server that hides its version is taken at its word.
    match version_of(version) {
        Some(numbers) if numbers < MIN_SERVER => Err(ProvisionError::OldServer {
            version: version.to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
