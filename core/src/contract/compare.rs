//! What has changed between two versions of a contract, and what of it breaks those who know the old one.
//!
//! A request is read by the service, so it may come to accept more; an answer and an error are read by callers, so they may
//! come to say more. An answer that is *kept* is read by both versions for as long as it lies in its bucket: there a new
//! required field breaks the reading of old entries.

use super::streams::PART_OF;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// One change.
///
/// ```
/// use nats_service::contract::differences;
/// use serde_json::json;
/// let old = json!({"operations": {"save": {}, "load": {}}});
/// let new = json!({"operations": {"save": {}}});
/// let found = differences(&old, &new);
/// assert!(found[0].breaking);
/// assert_eq!(found[0].to_string(), "load: the method is gone");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Where: `save`, `save request.address.street`, `bucket user_profiles`.
    pub at: String,
    /// What.
    pub what: String,
    /// A peer, or an entry, of the old version does not work with the new one.
    pub breaking: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// Everything that differs between two documents of [`AsyncApi`](super::AsyncApi), other than descriptions and examples.
#[must_use]
pub fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut compare = Compare {
        old,
        new,
        found: Vec::new(),
        compared: HashSet::new(),
    };
    compare.documents();
    compare.found
}

/// Who reads the values of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reader {
    /// The service.
    Service,
    /// Callers.
    Callers,
    /// Callers, and whoever reads the bucket, where old values lie.
    Bucket,
}

struct Compare<'d> {
    old: &'d Value,
    new: &'d Value,
    found: Vec<Difference>,
    /// Schemas that are being compared, or were, by where they stand: types may hold themselves.
    compared: HashSet<(*const Value, *const Value, Reader)>,
}

/// Keywords that bound a value. Another bound may refuse what was fine, or let through what was not.
const BOUNDS: [&str; 10] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "multipleOf",
];

impl<'d> Compare<'d> {
    fn say(&mut self, breaking: bool, at: &str, what: impl Into<String>) {
        let (at, what) = (at.to_owned(), what.into());
        self.found.push(Difference { at, what, breaking });
    }

    /// Says it when the two are not the same.
    fn same(&mut self, breaking: bool, at: &str, name: &str, old: &Value, new: &Value) {
        if old != new {
            self.say(
                breaking,
                at,
                format!("{name} was {}, and is {}", text(old), text(new)),
            );
        }
    }

    fn documents(&mut self) {
        let (old, new) = (self.old, self.new);
        self.same(
            true,
            "service",
            "the name",
            &old["info"]["title"],
            &new["info"]["title"],
        );
        let (before, after) = (members(&old["operations"]), members(&new["operations"]));
        let of_methods = |(_, operation): &(&'d String, &'d Value)| operation[PART_OF].is_null();
        for (name, operation) in before.iter().filter(of_methods) {
            match after.get(name) {
                Some(other) => self.method(name, operation, other),
                None => self.say(true, name, "the method is gone"),
            }
        }
        let there = after.iter().filter(of_methods);
        for (name, _) in there.filter(|(name, _)| !before.contains_key(*name)) {
            self.say(false, name, "the method is new");
        }
        let (before, after) = (
            members(&old["x-nats-buckets"]),
            members(&new["x-nats-buckets"]),
        );
        for (name, bucket) in before {
            // A bucket that is gone is seen at the method that filled it.
            if let Some(other) = after.get(name) {
                self.bucket(name, bucket, other);
            }
        }
    }

    fn method(&mut self, name: &str, old: &'d Value, new: &'d Value) {
        let address = |document: &'d Value| &document["channels"][name]["address"];
        self.same(
            true,
            name,
            "the subject",
            address(self.old),
            address(self.new),
        );
        let queue = |operation: &'d Value| &operation["bindings"]["nats"]["queue"];
        self.same(false, name, "the queue group", queue(old), queue(new));
        // Callers repeat what may be repeated, without being asked.
        let idempotent = |operation: &'d Value| &operation["x-nats-idempotent"];
        let no_longer = idempotent(old) == true;
        self.same(
            no_longer,
            name,
            "idempotent",
            idempotent(old),
            idempotent(new),
        );
        let timeout = |operation: &'d Value| &operation["x-nats-timeout-ms"];
        self.same(
            false,
            name,
            "the time-out in milliseconds",
            timeout(old),
            timeout(new),
        );
        self.stream(name, &old["x-nats-stream"], &new["x-nats-stream"]);
        self.stores(
            name,
            list(&old["x-nats-stores"]),
            list(&new["x-nats-stores"]),
        );
        let kept = list(&old["x-nats-stores"])
            .iter()
            .any(|store| store["action"] != "evict");
        let answer = if kept {
            Reader::Bucket
        } else {
            Reader::Callers
        };
        let kinds = [
            ("request", Reader::Service),
            ("item", Reader::Service),
            ("answer", answer),
            ("error", Reader::Callers),
            ("stream-error", Reader::Callers),
        ];
        for (kind, reader) in kinds {
            let message =
                |document: &'d Value| &document["components"]["messages"][format!("{name}.{kind}")];
            let (old, new) = (message(self.old), message(self.new));
            if old.is_null() || new.is_null() {
                // Only of a side that streams, or not, in one of them: that is said of the method.
                continue;
            }
            let at = format!("{name} {kind}");
            self.same(
                true,
                &at,
                "the content type",
                &old["contentType"],
                &new["contentType"],
            );
            match kind {
                "error" | "stream-error" => self.errors(&at, &old["payload"], &new["payload"]),
                _ => self.schema(&at, &old["payload"], &new["payload"], reader),
            }
        }
    }

    /// Which side streams decides what either has to say; how much and how often, they tell each other.
    fn stream(&mut self, name: &str, old: &Value, new: &Value) {
        let (was, is) = (&old["mode"], &new["mode"]);
        self.same(true, name, "what streams", was, is);
        if was.is_null() || is.is_null() {
            return;
        }
        for (field, what) in [
            ("credit", "the credit of a stream"),
            ("heartbeat-ms", "the heartbeat in milliseconds"),
            ("silence-ms", "the longest silence in milliseconds"),
        ] {
            self.same(false, name, what, &old[field], &new[field]);
        }
    }

    /// The stores of a method, in whatever order.
    fn stores(&mut self, name: &str, old: &[Value], new: &[Value]) {
        let place = |store: &Value| {
            let word = |field: &str| store[field].as_str().unwrap_or_default().to_owned();
            [word("engine"), word("action"), word("bucket"), word("key")].join(" ")
        };
        for store in old {
            match new.iter().find(|other| place(other) == place(store)) {
                // The reply's revision, or that there is an entry at all, was a promise.
                Some(other) => {
                    let breaking = store["write"] == "before_reply" || other["write"] == "never";
                    let at = format!("{name} store {}", place(store));
                    self.same(breaking, &at, "`write`", &store["write"], &other["write"]);
                    let (was, is) = (&store["conditional"], &other["conditional"]);
                    self.same(!is.is_null(), &at, "`when`", was, is);
                    self.same(false, &at, "the cache", &store["cache"], &other["cache"]);
                }
                None => self.say(
                    true,
                    name,
                    format!(
                        "the store `{}` is gone, or has another bucket or key",
                        place(store)
                    ),
                ),
            }
        }
        for store in new {
            if !old.iter().any(|other| place(other) == place(store)) {
                self.say(false, name, format!("the store `{}` is new", place(store)));
            }
        }
    }

    fn bucket(&mut self, name: &str, old: &Value, new: &Value) {
        let at = format!("bucket {name}");
        self.same(true, &at, "the engine", &old["engine"], &new["engine"]);
        let names: std::collections::BTreeSet<_> =
            members(old).keys().chain(members(new).keys()).collect();
        for setting in names
            .into_iter()
            .filter(|name| *name != "engine" && *name != "description")
        {
            self.same(
                false,
                &at,
                &format!("`{setting}`"),
                &old[setting],
                &new[setting],
            );
        }
    }

    /// A variant that comes is an error like any other for who does not know it; one that goes is not missed.
    fn errors(&mut self, at: &str, old: &'d Value, new: &'d Value) {
        let variants = |payload: &'d Value| {
            let all = list(&payload["anyOf"]).iter();
            all.filter_map(|one| Some((one["properties"]["variant"]["const"].as_str()?, one)))
                .collect::<Vec<_>>()
        };
        let (before, after) = (variants(old), variants(new));
        for (name, variant) in &before {
            let at = format!("{at}.{name}");
            let Some((_, other)) = after.iter().find(|(other, _)| other == name) else {
                self.say(false, &at, "the variant is gone");
                continue;
            };
            let code = |variant: &'d Value| &variant["properties"]["code"]["const"];
            self.same(true, &at, "the code", code(variant), code(other));
            let details = |variant: &'d Value| &variant["properties"]["details"];
            match (details(variant), details(other)) {
                (Value::Null, Value::Null) => {}
                (Value::Null, _) => self.say(false, &at, "it has fields now"),
                (_, Value::Null) => self.say(true, &at, "its fields are gone"),
                (old, new) => self.schema(&at, old, new, Reader::Callers),
            }
        }
        for (name, _) in &after {
            if !before.iter().any(|(other, _)| other == name) {
                self.say(false, &format!("{at}.{name}"), "the variant is new");
            }
        }
    }

    fn schema(&mut self, at: &str, old: &'d Value, new: &'d Value, reader: Reader) {
        let (old, new) = (resolve(self.old, old), resolve(self.new, new));
        let both = (std::ptr::from_ref(old), std::ptr::from_ref(new), reader);
        if !self.compared.insert(both) {
            return;
        }
        match (or_null(old), or_null(new)) {
            (Some(inner), None) if !types(new).contains("null") => {
                self.say(reader != Reader::Callers, at, "`null` is gone");
                return self.schema(at, inner, new, reader);
            }
            (None, Some(inner)) if !types(old).contains("null") => {
                self.say(reader != Reader::Service, at, "`null` is new");
                return self.schema(at, old, inner, reader);
            }
            _ => {}
        }
        self.types(at, old, new, reader);
        for keyword in BOUNDS {
            self.bound(at, keyword, &old[keyword], &new[keyword], reader);
        }
        self.same(true, at, "the format", &old["format"], &new["format"]);
        self.alternatives(at, old, new, reader);
        self.properties(at, old, new, reader);
        for (keyword, step) in [("items", "[]"), ("additionalProperties", ".*")] {
            let (old, new) = (&old[keyword], &new[keyword]);
            match (old, new) {
                (Value::Null, Value::Null) => {}
                (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
                    for (number, (old, new)) in before.iter().zip(after).enumerate() {
                        self.schema(&format!("{at}[{number}]"), old, new, reader);
                    }
                }
                (Value::Object(_), Value::Object(_)) => {
                    self.schema(&format!("{at}{step}"), old, new, reader);
                }
                _ => self.same(true, at, keyword, old, new),
            }
        }
    }

    /// The reader of the new version, and the one of the old, must both get along.
    fn types(&mut self, at: &str, old: &Value, new: &Value, reader: Reader) {
        let (before, after) = (types(old), types(new));
        if before == after {
            return;
        }
        let wider = before.is_subset(&after) && !before.is_empty() || after.is_empty();
        let narrower = after.is_subset(&before) && !after.is_empty() || before.is_empty();
        let fine = match reader {
            Reader::Service => wider,
            Reader::Callers => narrower,
            Reader::Bucket => false,
        };
        self.same(!fine, at, "the type", &old["type"], &new["type"]);
    }

    fn bound(&mut self, at: &str, keyword: &str, old: &Value, new: &Value, reader: Reader) {
        let looser = new.is_null();
        let tighter = old.is_null();
        let fine = match reader {
            Reader::Service => looser,
            Reader::Callers => tighter,
            Reader::Bucket => false,
        };
        self.same(!fine, at, &format!("`{keyword}`"), old, new);
    }

    fn properties(&mut self, at: &str, old: &'d Value, new: &'d Value, reader: Reader) {
        let (before, after) = (members(&old["properties"]), members(&new["properties"]));
        let required =
            |schema: &'d Value, name: &str| list(&schema["required"]).iter().any(|it| it == name);
        for (name, schema) in before {
            let at = format!("{at}.{name}");
            let Some(other) = after.get(name) else {
                self.say(true, &at, "the field is gone, or has another name");
                continue;
            };
            self.schema(&at, schema, other, reader);
            match (required(old, name), required(new, name)) {
                (false, true) => {
                    self.say(
                        reader != Reader::Callers,
                        &at,
                        "the field may no longer be missing",
                    );
                }
                (true, false) => self.say(
                    reader != Reader::Service,
                    &at,
                    "the field may be missing now",
                ),
                _ => {}
            }
        }
        for name in after.keys().filter(|name| !before.contains_key(*name)) {
            let at = format!("{at}.{name}");
            match (required(new, name), reader) {
                (false, _) => self.say(false, &at, "the field is new, and may be missing"),
                (true, Reader::Callers) => self.say(false, &at, "the field is new"),
                (true, Reader::Service) => {
                    self.say(
                        true,
                        &at,
                        "the field is new and required: old callers do not send it",
                    );
                }
                (true, Reader::Bucket) => {
                    self.say(
                        true,
                        &at,
                        "the field is new and required: entries that are kept do not have it",
                    );
                }
            }
        }
    }

    /// The values or the forms that something may take.
    fn alternatives(&mut self, at: &str, old: &'d Value, new: &'d Value, reader: Reader) {
        let (before, after) = (alternatives(old), alternatives(new));
        for (name, schema) in &before {
            match after.iter().find(|(other, _)| other == name) {
                Some((_, other)) => {
                    if let (Some(schema), Some(other)) = (schema, other) {
                        self.schema(&format!("{at}({name})"), schema, other, reader);
                    }
                }
                None => self.say(reader != Reader::Callers, at, format!("`{name}` is gone")),
            }
        }
        for (name, _) in &after {
            if !before.iter().any(|(other, _)| other == name) {
                // An enum is read by name: a reader of the old version does not know this one.
                self.say(
                    reader != Reader::Service && !before.is_empty(),
                    at,
                    format!("`{name}` is new"),
                );
            }
        }
    }
}

fn resolve<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let mut schema = schema;
    // A document that was tampered with may refer in a circle.
    for _ in 0..32 {
        let pointer = schema["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
        // `allOf` with one member is a reference that has a description beside it.
        let wrapped = list(&schema["allOf"]);
        schema = match (pointer, wrapped) {
            (Some(pointer), _) => document.pointer(pointer).unwrap_or(&Value::Null),
            (None, [one]) => one,
            _ => return schema,
        };
    }
    schema
}

/// What it is when it is not null, where it may be either.
fn or_null(schema: &Value) -> Option<&Value> {
    let null = |one: &Value| one["type"] == "null";
    match list(&schema["anyOf"]) {
        [one, other] if null(other) && !null(one) => Some(one),
        _ => None,
    }
}

fn types(schema: &Value) -> HashSet<&str> {
    match &schema["type"] {
        Value::String(one) => HashSet::from([one.as_str()]),
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => HashSet::new(),
    }
}

/// Each alternative by a name that stays when others come and go; by its place, too, where others have the same name.
fn alternatives(schema: &Value) -> Vec<(String, Option<&Value>)> {
    let mut all = Vec::new();
    for value in list(&schema["enum"]) {
        all.push((text(value), None));
    }
    if !schema["const"].is_null() {
        all.push((text(&schema["const"]), None));
    }
    for keyword in ["oneOf", "anyOf"] {
        for (number, one) in list(&schema[keyword]).iter().enumerate() {
            if one["enum"].is_array() && one["properties"].is_null() {
                all.extend(list(&one["enum"]).iter().map(|value| (text(value), None)));
            } else {
                all.push((name_of(one, number), Some(one)));
            }
        }
    }
    let mut named = HashMap::new();
    for (name, _) in &mut all {
        let so_far = named.entry(name.clone()).or_insert(0_u32);
        *so_far += 1;
        if *so_far > 1 {
            *name = format!("{name} {so_far}");
        }
    }
    all
}

fn name_of(alternative: &Value, number: usize) -> String {
    if let Some(reference) = alternative["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or(reference).to_owned();
    }
    if !alternative["const"].is_null() {
        return text(&alternative["const"]);
    }
    // `#[serde(tag = "..")]`: a field with one possible value.
    let tags = members(&alternative["properties"]).values();
    let mut tags = tags.filter(|field| !field["const"].is_null());
    if let Some(tag) = tags.next() {
        return text(&tag["const"]);
    }
    // serde's default: an object with one field, named after the variant.
    match list(&alternative["required"]) {
        [Value::String(only)] => only.clone(),
        _ => match alternative["title"]
            .as_str()
            .or(alternative["type"].as_str())
        {
            Some(name) => name.to_owned(),
            None => number.to_string(),
        },
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn members(value: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}
