//! The contract as a document: what is in it, and what a change of it means.

mod changes;
mod document;

use nats_service::{ByteStream, Error, ServiceError, Stream, message, nats_service};
use serde_json::Value;
use std::borrow::Cow;

#[message(schema)]
struct SaveProfile {
    id: String,
    email: String,
    /// Free words.
    #[serde(default)]
    tags: Vec<String>,
    address: Option<Address>,
}

#[message(schema)]
struct Address {
    street: String,
    number: u16,
}

#[message(schema)]
struct Profile {
    id: String,
    email: String,
    role: Role,
    /// A type that holds itself.
    friends: Vec<Profile>,
}

#[message(schema)]
#[serde(rename_all = "lowercase")]
enum Role {
    Admin,
    Guest,
}

#[message(schema)]
struct Note<'a> {
    id: &'a str,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// A type without a schema.
#[message]
struct Opaque(u8);

#[derive(Debug, ServiceError)]
enum ProfileError {
    /// Somebody else has it.
    #[service_error(code = AlreadyExists, message = "{email} belongs to another profile")]
    EmailTaken { email: String, free: Option<String> },
    #[service_error(code = NotFound, message = "no profile {0}")]
    Missing(String),
    #[service_error(code = Unavailable, message = "closed")]
    Closed,
}

/// User profiles.
#[nats_service(version = "1.4.0", metadata(team = "blue"))]
trait Profiles {
    /// Saves a profile.
    #[kv_store(
        bucket = "user_profiles",
        key = "user.<request.id>",
        history = 5,
        ttl = "1h",
        write = "before_reply"
    )]
    #[endpoint(timeout = "2s", metadata(cost = "low"))]
    async fn save(&self, request: SaveProfile) -> Result<Profile, ProfileError>;

    #[kv_evict(bucket = "user_profiles", key = "user.<id>")]
    async fn delete(&self, id: u64, why: Option<String>) -> Result<(), Error>;

    #[object_store(bucket = "exports", key = "export.<day>")]
    async fn export(&self, day: &str) -> ByteStream;

    #[endpoint(queue_group = false)]
    async fn count(&self) -> u64;

    async fn note(&self, note: Note<'_>) -> bool;

    #[cfg(any())]
    async fn elsewhere(&self) -> NoSuchType;

    #[cfg(not(any()))]
    async fn here(&self) -> bool;
}

#[derive(Debug, ServiceError)]
enum Torn {
    #[service_error(code = DataLoss, message = "line {line} is damaged")]
    Damaged { line: u64 },
}

/// Streams, on either side and on both.
#[nats_service(version = "1.0.0")]
trait Lines {
    async fn tail(
        &self,
        day: String,
    ) -> Result<impl Stream<Item = Result<Address, Torn>> + Send, ProfileError>;

    async fn add(&self, start: u64, lines: impl Stream<Item = Address> + Send) -> u32;

    async fn swap(
        &self,
        lines: impl Stream<Item = Role> + Send + 'static,
    ) -> impl Stream<Item = u16> + Send;

    async fn plain(&self) -> u64;
}

/// Its types have no schema, and nobody asks for one.
#[nats_service]
trait Silent {
    async fn opaque(&self, request: Opaque) -> Opaque;
}

#[nats_service]
trait Empty {}

#[message(schema)]
#[serde(untagged)]
enum Contact {
    Mail { mail: String, name: String },
    Post { street: String, town: String },
    Both(String, String),
    Pair(u8, String),
}

/// Its messages have forms that nothing names.
#[nats_service]
trait Contacts {
    async fn find(&self, contact: Contact) -> Contact;
}

struct Clerk;

impl Silent for Clerk {
    async fn opaque(&self, request: Opaque) -> Opaque {
        request
    }
}

impl Lines for Clerk {
    async fn tail(
        &self,
        _: String,
    ) -> Result<impl Stream<Item = Result<Address, Torn>> + Send, ProfileError> {
        Ok(futures_util::stream::empty())
    }

    async fn add(&self, _: u64, _: impl Stream<Item = Address> + Send) -> u32 {
        0
    }

    async fn swap(
        &self,
        _: impl Stream<Item = Role> + Send + 'static,
    ) -> impl Stream<Item = u16> + Send {
        futures_util::stream::empty()
    }

    async fn plain(&self) -> u64 {
        0
    }
}

#[nats_service(metadata(contract = "mine"))]
trait Greeter {
    #[endpoint(metadata(request = "a name"))]
    #[kv_store(bucket = "said", key = "said.<name>", ttl = "1h")]
    async fn hello(&self, name: String) -> Result<Address, ProfileError>;
}

impl Greeter for Clerk {
    async fn hello(&self, _: String) -> Result<Address, ProfileError> {
        Err(ProfileError::Closed)
    }
}

fn document() -> Value {
    ProfilesContract::asyncapi().into_value()
}

fn lines() -> Value {
    LinesContract::asyncapi().into_value()
}

/// The document with one part replaced; `null` removes it.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = document();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("{pointer}"));
    match (parent, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(name)),
        (parent, value) => parent[name] = value,
    }
    document
}
