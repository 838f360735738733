//! The description of a contract, as the macro writes it: plain constants, read by the service, the client and the stores.
//!
//! Everything was checked when the trait was compiled, so nothing here is checked again.

use crate::store::{BucketSpec, KeyTemplate};
use crate::wire::codec::Codec;
use crate::wire::error::Code;
use std::time::Duration;

/// One service: an annotated trait.
#[derive(Debug, Clone, Copy)]
pub struct ServiceSpec {
    /// The name in discovery.
    pub name: &'static str,
    /// A semantic version.
    pub version: &'static str,
    /// What it is for; empty when the trait has no doc comment.
    pub description: &'static str,
    /// Free pairs, shown in discovery.
    pub metadata: &'static [(&'static str, &'static str)],
    /// The endpoints, in the order of the trait.
    pub methods: &'static [&'static MethodSpec],
}

/// One method, which is one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct MethodSpec {
    /// The endpoint's name: the method's.
    pub name: &'static str,
    /// The whole subject, prefix and all.
    pub subject: &'static str,
    /// What it does; empty when the method has no doc comment.
    pub description: &'static str,
    /// The queue group; `None` when every instance is to get every request.
    pub queue_group: Option<&'static str>,
    /// The method itself says so, and not its service: a server's own queue group does not replace it.
    pub own_queue_group: bool,
    /// How long a call may take, on either side.
    pub timeout: Duration,
    /// A call may happen twice: a client repeats one that nobody took.
    pub idempotent: bool,
    /// Free pairs, shown in discovery.
    pub metadata: &'static [(&'static str, &'static str)],
    /// How bodies and entries are encoded.
    pub codec: Codec,
    /// How many requests run at once, where the server's own bound is not to count.
    pub max_in_flight: Option<usize>,
    /// The same of those that wait.
    pub max_waiting: Option<usize>,
    /// And of their bytes.
    pub max_waiting_bytes: Option<usize>,
    /// The handler asks for its call's context.
    pub context: bool,
    /// Which side sends more than one message.
    pub stream: StreamMode,
    /// What happens in stores after a successful call, in the order of the attributes.
    pub stores: &'static [StoreSpec],
}

impl ServiceSpec {
    /// What a context without a call says.
    pub(crate) const NONE: Self = Self {
        name: "",
        version: "0.0.0",
        description: "",
        metadata: &[],
        methods: &[],
    };
}

impl MethodSpec {
    /// What a context without a call says.
    pub(crate) const NONE: Self = Self {
        name: "",
        subject: "",
        description: "",
        queue_group: None,
        own_queue_group: false,
        timeout: Duration::ZERO,
        idempotent: false,
        metadata: &[],
        codec: Codec::Json,
        max_in_flight: None,
        max_waiting: None,
        max_waiting_bytes: None,
        context: true,
        stream: StreamMode::None,
        stores: &[],
    };
}

/// Which side of a call sends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamMode {
    /// Neither: one request, one answer.
    #[default]
    None,
    /// The service.
    Answers,
    /// The caller, and the service answers once.
    Requests,
    /// Both.
    Both,
}

impl StreamMode {
    /// Whether the caller sends a stream.
    #[must_use]
    pub const fn takes(self) -> bool {
        matches!(self, Self::Requests | Self::Both)
    }

    /// What discovery says of it; `None` of an ordinary endpoint.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Answers => Some("answers"),
            Self::Requests => Some("requests"),
            Self::Both => Some("both"),
        }
    }
}

/// One `#[kv_store]`, `#[kv_cache]`, `#[kv_evict]`, `#[object_store]` or `#[object_evict]`.
#[derive(Debug, Clone, Copy)]
pub struct StoreSpec {
    /// The accessor of its typed store: `name = ".."`, or else the method's name. Empty for an eviction.
    pub name: &'static str,
    /// Which engine.
    pub kind: StoreKind,
    /// Keep the answer, or remove what is kept.
    pub action: StoreAction,
    /// Where.
    pub bucket: BucketSpec,
    /// Under which key (or object name).
    pub key: KeyTemplate,
    /// When.
    pub write: WriteMode,
    /// It has a `when`, which decides call by call.
    pub conditional: bool,
    /// It is looked into before the call.
    pub cache: Option<CacheSpec>,
}

/// What `#[kv_cache]` says beyond a store.
#[derive(Debug, Clone, Copy)]
pub struct CacheSpec {
    /// How long an answer is given without a call.
    pub fresh: Duration,
    /// How long after that it may be given when the handler fails.
    pub stale: Option<Duration>,
    /// How long "nothing" is kept; `None` when it is not.
    pub none: Option<Duration>,
    /// Which errors of the service are kept, and how long.
    pub errors: &'static [(Code, Duration)],
    /// How long a look into the bucket may take.
    pub lookup_timeout: Duration,
    /// Among whom one call of a key is made.
    pub flight: SingleFlight,
}

/// Among whom one handler call of a key is made: `single_flight = ".."`.
///
/// ```
/// # use nats_service::SingleFlight;
/// assert_eq!(SingleFlight::default(), SingleFlight::Process);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SingleFlight {
    /// In each instance for itself.
    #[default]
    Process,
    /// Among all instances, by a claim in the bucket.
    Cluster,
}

/// Which engine a store is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// A key-value bucket.
    Kv,
    /// An object store.
    Object,
}

/// What a successful call does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreAction {
    /// The answer becomes the value.
    Put,
    /// The key is deleted.
    Evict,
}

/// When an answer is stored: `write = ".."`.
///
/// ```
/// # use nats_service::WriteMode;
/// assert_eq!(WriteMode::default(), WriteMode::AfterReply);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// Reply first, then write: the caller does not wait for the store.
    #[default]
    AfterReply,
    /// Write, wait for the acknowledgement, then reply with its revision.
    BeforeReply,
    /// No write: just the typed store is generated.
    Never,
}
