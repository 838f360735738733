//! The AsyncAPI document of a contract.

use super::describe::{Described, ErrorVariant, MethodBuilder};
use super::streams;
use crate::wire::error::Code;
use crate::wire::spec::{MethodSpec, ServiceSpec, StoreSpec};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt;

/// The version of the specification that the official parser recommends.
const ASYNCAPI: &str = "3.1.0";

/// A contract as an AsyncAPI 3.1 document. Prints as indented JSON, always in the same order.
///
/// Channels, operations and messages are named after the methods. What AsyncAPI has no words for is in `x-nats-` fields:
/// `x-nats-stores` of an operation (engine, action, bucket, key, when it is written), `x-nats-timeout-ms`, `x-nats-errors`,
/// `x-nats-idempotent`, `x-nats-stream` (which side streams, with how much credit), and `x-nats-buckets` of the document (history, time to live, bounds).
///
/// ```
/// use nats_service::{message, nats_service};
///
/// #[message(schema)]
/// pub struct Profile { id: String, email: Option<String> }
///
/// #[nats_service(version = "1.0.0")]
/// pub trait Profiles {
///     #[kv_store(bucket = "user_profiles", key = "user.<profile.id>", ttl = "1h")]
///     async fn save(&self, profile: Profile) -> Profile;
/// }
///
/// let document = ProfilesContract::asyncapi();
/// let json = document.as_value();
/// assert_eq!(json["channels"]["save"]["address"], "profiles.save");
/// assert_eq!(json["components"]["schemas"]["Profile"]["required"][0], "id");
/// assert_eq!(json["x-nats-buckets"]["user_profiles"]["ttl-ms"], 3_600_000);
/// println!("{document}");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct AsyncApi(pub(super) Value);

impl AsyncApi {
    /// The document.
    #[must_use]
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// The document, to be changed: a licence, a server's address.
    pub fn as_value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    /// The document.
    #[must_use]
    pub fn into_value(self) -> Value {
        self.0
    }
}

impl fmt::Display for AsyncApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

/// Puts a document together; generated code calls it.
#[derive(Debug)]
pub struct ContractBuilder {
    spec: &'static ServiceSpec,
    generator: SchemaGenerator,
    pub(super) channels: Map<String, Value>,
    pub(super) operations: Map<String, Value>,
    pub(super) messages: Map<String, Value>,
    buckets: Map<String, Value>,
}

impl ContractBuilder {
    /// Begins.
    #[must_use]
    pub fn new(spec: &'static ServiceSpec) -> Self {
        // Draft 7 is what AsyncAPI's own schema format extends.
        let settings = SchemaSettings::draft07().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self {
            spec,
            generator: settings.into_generator(),
            channels: Map::new(),
            operations: Map::new(),
            messages: Map::new(),
            buckets: Map::new(),
        }
    }

    /// Adds a method.
    pub fn method<M: Described>(&mut self) {
        if let Some(spec) = M::spec() {
            let mut builder = MethodBuilder::new(&mut self.generator);
            M::describe(&mut builder);
            let (request, answer, errors) = (builder.request(), builder.answer, builder.errors);
            let (item, item_errors) = (builder.item, builder.item_errors);
            self.add(spec, request, answer, &errors);
            streams::add(self, spec, item, &item_errors);
        }
    }

    fn add(&mut self, spec: &MethodSpec, request: Value, answer: Value, errors: &[ErrorVariant]) {
        let name = spec.name;
        let content = spec.codec.content_type();
        let message = |payload: Value| json!({ "contentType": content, "payload": payload });
        self.messages
            .insert(format!("{name}.request"), message(request));
        self.messages
            .insert(format!("{name}.answer"), message(answer));
        self.messages
            .insert(format!("{name}.error"), error_message(errors));

        let component =
            |kind: &str| reference(&["components", "messages", &format!("{name}.{kind}")]);
        let reply = format!("{name}.reply");
        self.channels.insert(
            name.to_owned(),
            json!({ "address": spec.subject, "messages": { "request": component("request") } }),
        );
        // Where a reply goes, each request says for itself.
        self.channels.insert(
            reply.clone(),
            json!({ "address": null, "messages": { "answer": component("answer"), "error": component("error") } }),
        );
        let of_channel =
            |channel: &str, message: &str| reference(&["channels", channel, "messages", message]);
        let mut operation = json!({
            "action": "receive",
            "channel": reference(&["channels", name]),
            "messages": [of_channel(name, "request")],
            "reply": {
                "channel": reference(&["channels", &reply]),
                "messages": [of_channel(&reply, "answer"), of_channel(&reply, "error")],
            },
            "x-nats-timeout-ms": milliseconds(spec.timeout),
        });
        if spec.idempotent {
            operation["x-nats-idempotent"] = true.into();
        }
        if let Some(group) = spec.queue_group {
            operation["bindings"] =
                json!({ "nats": { "queue": group, "bindingVersion": "0.1.0" } });
        }
        if !spec.description.is_empty() {
            operation["summary"] = spec.description.into();
        }
        if !errors.is_empty() {
            operation["x-nats-errors"] = listed(errors);
        }
        if !spec.metadata.is_empty() {
            operation["x-nats-metadata"] = pairs(spec.metadata);
        }
        if !spec.stores.is_empty() {
            operation["x-nats-stores"] = spec.stores.iter().map(store).collect();
        }
        for of in spec.stores {
            let bucket = self
                .buckets
                .entry(of.bucket.name)
                .or_insert_with(|| json!({}));
            describe_bucket(of, bucket);
        }
        self.operations.insert(name.to_owned(), operation);
    }

    /// The document.
    #[must_use]
    pub fn finish(mut self) -> AsyncApi {
        let spec = self.spec;
        let mut info = json!({ "title": spec.name, "version": spec.version });
        if !spec.description.is_empty() {
            info["description"] = spec.description.into();
        }
        if !spec.metadata.is_empty() {
            info["x-nats-metadata"] = pairs(spec.metadata);
        }
        let mut schemas = self.generator.take_definitions(true);
        schemas.insert(ANY_ERROR.to_owned(), any_error());
        let mut document = json!({
            "asyncapi": ASYNCAPI,
            "info": info,
            "channels": self.channels,
            "operations": self.operations,
            "components": { "messages": self.messages, "schemas": schemas },
        });
        if !self.buckets.is_empty() {
            document["x-nats-buckets"] = self.buckets.into();
        }
        AsyncApi(document)
    }
}

const ANY_ERROR: &str = "NatsServiceError";

/// Variants with their codes.
pub(super) fn listed(errors: &[ErrorVariant]) -> Value {
    let errors = errors.iter().map(|error| {
        json!({ "variant": error.name(), "code": error.code().name(), "number": error.code().number() })
    });
    errors.collect()
}

/// A reference to another part of the document.
pub(super) fn reference(path: &[&str]) -> Value {
    json!({ "$ref": format!("#/{}", path.join("/")) })
}

fn pairs(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    Value::Object(pairs.collect())
}

pub(super) fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `BeforeReply`, as the attribute writes it: `before_reply`.
pub(super) fn word(variant: impl fmt::Debug) -> String {
    let mut word = String::new();
    for c in format!("{variant:?}").chars() {
        if c.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.extend(c.to_lowercase());
    }
    word
}

fn store(store: &StoreSpec) -> Value {
    let mut described = json!({
        "engine": word(store.kind),
        "action": word(store.action),
        "bucket": store.bucket.name,
        "key": store.key.source,
        "write": word(store.write),
    });
    if store.conditional {
        described["conditional"] = true.into();
    }
    if let Some(cache) = &store.cache {
        described["cache"] = json!({
            "fresh-ms": milliseconds(cache.fresh),
            "single-flight": word(cache.flight),
        });
        let optional = [("stale-ms", cache.stale), ("none-ms", cache.none)];
        for (name, kept) in optional {
            if let Some(kept) = kept {
                described["cache"][name] = milliseconds(kept).into();
            }
        }
        for (code, kept) in cache.errors {
            described["cache"]["errors-ms"][code.name()] = milliseconds(*kept).into();
        }
    }
    described
}

/// What the attributes name of a bucket; what they do not name is left to the server, and out of here.
fn describe_bucket(store: &StoreSpec, into: &mut Value) {
    let bucket = &store.bucket;
    into["engine"] = word(store.kind).into();
    let settings = [
        ("history", bucket.history.map(Value::from)),
        ("ttl-ms", bucket.ttl.map(|ttl| milliseconds(ttl).into())),
        ("description", bucket.description.map(Value::from)),
        ("replicas", bucket.replicas.map(Value::from)),
        (
            "storage",
            bucket.storage.map(|storage| word(storage).into()),
        ),
        ("max-bytes", bucket.max_bytes.map(Value::from)),
        ("max-value-size", bucket.max_value_size.map(Value::from)),
        ("compression", bucket.compression.map(Value::from)),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            into[name] = value;
        }
    }
}

/// An error reply of a method: one of its variants, or what every service may answer.
pub(super) fn error_message(errors: &[ErrorVariant]) -> Value {
    let mut any: Vec<Value> = errors.iter().map(ErrorVariant::schema).collect();
    any.push(reference(&["components", "schemas", ANY_ERROR]));
    json!({
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": ["Nats-Service-Error", "Nats-Service-Error-Code"],
            "properties": {
                "Nats-Service-Error": { "type": "string" },
                "Nats-Service-Error-Code": { "type": "string" },
            },
        },
        "payload": { "anyOf": any },
    })
}

fn any_error() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    json!({
        "type": "object",
        "description": "What any method may answer; `refused` is true where the framework says it, and not the handler.",
        "required": ["code", "message"],
        "properties": {
            "code": { "type": "string", "examples": codes },
            "message": { "type": "string" },
            "variant": { "type": "string" },
            "details": {},
            "refused": { "type": "boolean" },
        },
    })
}
