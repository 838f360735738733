//! The short form of a contract, for the metadata of `$SRV.INFO`: what a person wants to see in `nats micro info`.

use super::AsyncApi;
use super::streams::PART_OF;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

/// A description that is longer ends in dots: metadata is for a glance.
const LONGEST: usize = 512;
/// Types within types are written out so deep.
const DEEPEST: usize = 2;

/// What discovery shows of a contract.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShortForms {
    /// Whose it is.
    pub(crate) name: String,
    /// For the service.
    pub(crate) service: Vec<(&'static str, String)>,
    /// For each endpoint, by name.
    pub(crate) endpoints: Vec<(String, Vec<(&'static str, String)>)>,
}

impl AsyncApi {
    /// A digest of the document, the same for the same contract: base64url of its SHA-256.
    ///
    /// ```
    /// # use nats_service::nats_service;
    /// # #[nats_service] pub trait Profiles { async fn count(&self) -> u64; }
    /// assert_eq!(ProfilesContract::asyncapi().digest(), ProfilesContract::asyncapi().digest());
    /// ```
    #[must_use]
    pub fn digest(&self) -> String {
        let text = self.0.to_string();
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(digest)
    }

    /// What discovery shows of it: a service's `asyncapi` and `contract` (the digest), an endpoint's `request`,
    /// `requests` where the caller streams, `answer`, `errors`, `ends` (the errors that a
    /// stream of answers may end with) and `stores`.
    pub(crate) fn short_forms(&self) -> ShortForms {
        let document = &self.0;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let operations = document["operations"].as_object().into_iter().flatten();
        let operations = operations.filter(|(_, operation)| operation[PART_OF].is_null());
        let endpoints = operations.map(|(name, operation)| {
            let payload = |kind: &str| {
                let message = &document["components"]["messages"][format!("{name}.{kind}")];
                bounded(short(document, &message["payload"], 0))
            };
            let streams = |side: &str| {
                let mode = &operation["x-nats-stream"]["mode"];
                mode == side || mode == "both"
            };
            let mut pairs = vec![("request", payload("request"))];
            if streams("requests") {
                pairs.push((
                    "requests",
                    bounded(format!("stream of {}", payload("item"))),
                ));
            }
            pairs.push(match streams("answers") {
                true => (
                    "answer",
                    bounded(format!("stream of {}", payload("answer"))),
                ),
                false => ("answer", payload("answer")),
            });
            let each = |field: &str, line: &dyn Fn(&Value) -> String| {
                let all = operation[field].as_array().into_iter().flatten();
                all.map(line).collect::<Vec<_>>().join(", ")
            };
            let error =
                |error: &Value| format!("{} ({})", text(&error["variant"]), text(&error["code"]));
            let errors = each("x-nats-errors", &error);
            let ends = &operation["x-nats-stream"]["errors"];
            let ends = ends.as_array().into_iter().flatten().map(error);
            let ends = ends.collect::<Vec<_>>().join(", ");
            let stores = each("x-nats-stores", &|store| {
                let bucket = text(&store["bucket"]);
                let ttl = match document["x-nats-buckets"][&bucket]["ttl-ms"].as_u64() {
                    Some(ttl) => format!(" for {:?}", std::time::Duration::from_millis(ttl)),
                    None => String::new(),
                };
                let (engine, action, key) = (&store["engine"], &store["action"], &store["key"]);
                format!(
                    "{} {} {bucket}/{}{ttl}",
                    text(engine),
                    text(action),
                    text(key)
                )
            });
            for (name, line) in [("errors", errors), ("ends", ends), ("stores", stores)] {
                if !line.is_empty() {
                    pairs.push((name, bounded(line)));
                }
            }
            (name.clone(), pairs)
        });
        ShortForms {
            name: text(&document["info"]["title"]),
            service: vec![
                ("asyncapi", text(&document["asyncapi"])),
                ("contract", self.digest()),
            ],
            endpoints: endpoints.collect(),
        }
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST - 4)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str(" ...");
    }
    text
}

/// A type in a few words: `{email: string, tags?: [string]}`.
fn short(document: &Value, schema: &Value, depth: usize) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        let resolved = reference
            .strip_prefix('#')
            .and_then(|it| document.pointer(it));
        return match resolved {
            Some(schema) if depth < DEEPEST => {
                let inner = short(document, schema, depth + 1);
                if inner.starts_with('{') {
                    format!("{name} {inner}")
                } else {
                    inner
                }
            }
            _ => name.to_owned(),
        };
    }
    let several = |all: &Vec<Value>| {
        let all = all.iter().map(|one| short(document, one, depth + 1));
        all.collect::<Vec<_>>().join(" | ")
    };
    for keyword in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema[keyword].as_array() {
            return several(all);
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join(" | ");
    }
    if !schema["const"].is_null() {
        return schema["const"].to_string();
    }
    let kind = match &schema["type"] {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(" | "),
        _ => "any".to_owned(),
    };
    if let Some(fields) = schema["properties"].as_object() {
        let required = schema["required"].as_array();
        let fields = fields.iter().map(|(name, field)| {
            let must = required.is_some_and(|all| all.iter().any(|it| it == name));
            let mark = if must { "" } else { "?" };
            format!("{name}{mark}: {}", short(document, field, depth + 1))
        });
        return format!("{{{}}}", fields.collect::<Vec<_>>().join(", "));
    }
    if schema["items"].is_object() {
        return format!("[{}]", short(document, &schema["items"], depth + 1));
    }
    match schema["format"].as_str() {
        Some(format) => format.to_owned(),
        None => kind,
    }
}
