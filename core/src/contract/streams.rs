//! What the document says of a method that streams, besides what it says of every method: the frames of either side, and the
//! channel by which the caller speaks once the stream is open. `docs/guide/streaming.md` has what the words mean.

use super::describe::ErrorVariant;
use super::document::{ContractBuilder, error_message, listed, milliseconds, reference};
use crate::streaming::{Pace, WINDOW};
use crate::wire::frame::STREAM;
use crate::wire::spec::{MethodSpec, StreamMode};
use serde_json::{Map, Value, json};

/// Of an operation that belongs to a method of another name.
pub(super) const PART_OF: &str = "x-nats-stream-of";

/// Frames that are the same for every method, and what they are.
const COMMON: [(&str, &str); 4] = [
    (
        "open",
        "The service's first word. Its reply subject is where the caller speaks.",
    ),
    ("end", "There are no more items."),
    ("state", "What has come, what may come, and a sign of life."),
    ("cancel", "The stream is of no more use."),
];

/// Adds what a method that streams has besides; nothing for any other.
pub(super) fn add(
    contract: &mut ContractBuilder,
    spec: &MethodSpec,
    item: Value,
    errors: &[ErrorVariant],
) {
    let Some(mode) = spec.stream.name() else {
        return;
    };
    let (name, content) = (spec.name, spec.codec.content_type());
    let answers = matches!(spec.stream, StreamMode::Answers | StreamMode::Both);
    let takes = spec.stream.takes();
    for (word, summary) in COMMON {
        let message = contract.messages.entry(common(word));
        message.or_insert_with(|| json!({ "summary": summary, "headers": frame(word) }));
    }

    let own = |kind: &str| format!("{name}.{kind}");
    let messages = &mut contract.messages;
    messages[&own("request")]["headers"] = frame("open");
    // A stream of answers ends without one; a single answer is the end.
    messages[&own("answer")]["headers"] = frame(if answers { "items" } else { "end" });
    if takes {
        let message = json!({ "contentType": content, "payload": item, "headers": frame("items") });
        messages.insert(own("item"), message);
    }
    let (mut said, mut heard) = (vec!["open", "state", "cancel"], vec!["state", "cancel"]);
    if answers {
        let mut message = error_message(errors);
        message["headers"]["properties"][STREAM] = word("error");
        messages.insert(own("stream-error"), message);
        said.push("end");
    }
    if takes {
        heard.push("end");
    }

    // What the service says.
    let reply = own("reply");
    let mut replies = vec!["answer", "error"];
    if answers {
        replies.push("stream-error");
    }
    let back = described(name, &replies, &said);
    contract.operations[name]["reply"]["messages"] = references(&reply, &back);
    contract.channels[&reply]["messages"] = back.into();

    // What the caller says, once it knows where.
    let stream = own("stream");
    let forth = described(name, if takes { &["item"] } else { &[] }, &heard);
    contract.operations.insert(
        stream.clone(),
        json!({
            "action": "receive",
            "channel": reference(&["channels", &stream]),
            "messages": references(&stream, &forth),
            PART_OF: name,
        }),
    );
    contract
        .channels
        .insert(stream, json!({ "address": null, "messages": forth }));

    let pace = Pace::default();
    let mut about = json!({
        "mode": mode,
        // What a reader allows where nobody says otherwise.
        "credit": { "items": WINDOW.items, "bytes": WINDOW.bytes },
        "heartbeat-ms": pace.millis(),
        "silence-ms": milliseconds(pace.silence()),
    });
    if !errors.is_empty() {
        about["errors"] = listed(errors);
    }
    contract.operations[name]["x-nats-stream"] = about;
}

fn common(word: &str) -> String {
    format!("nats-service-stream.{word}")
}

/// The messages of a channel: the method's own, and those that are common to all.
fn described(method: &str, own: &[&str], shared: &[&str]) -> Map<String, Value> {
    let own = own
        .iter()
        .map(|kind| ((*kind).to_owned(), format!("{method}.{kind}")));
    let shared = shared.iter().map(|word| ((*word).to_owned(), common(word)));
    let all = own.chain(shared);
    all.map(|(kind, message)| (kind, reference(&["components", "messages", &message])))
        .collect()
}

/// References to all messages of a channel.
fn references(channel: &str, messages: &Map<String, Value>) -> Value {
    let names = messages.keys();
    names
        .map(|name| reference(&["channels", channel, "messages", name]))
        .collect()
}

/// The headers of a frame.
fn frame(kind: &str) -> Value {
    json!({ "type": "object", "required": [STREAM], "properties": { STREAM: word(kind) } })
}

/// The header's content: a word, and numbers by name.
fn word(kind: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{kind}( [a-z]+=[0-9]+)*$") })
}
