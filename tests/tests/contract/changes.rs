//! What a change of the document means, and which version it asks for.

use super::*;
use nats_service::contract::{AsyncApi, ContractError, check, check_against, differences};
use serde_json::json;

#[test]
fn what_streams_and_what_its_items_are_is_part_of_the_contract() {
    let old = lines();
    assert_eq!(differences(&old, &lines()), []);
    let changed = |pointer: &str, value: Value| {
        let mut new = lines();
        *new.pointer_mut(pointer)
            .unwrap_or_else(|| panic!("{pointer}")) = value;
        breaking(&new, &old)
    };
    for (pointer, value, expected) in [
        (
            "/operations/add/x-nats-stream/mode",
            json!("both"),
            "add: what streams was requests, and is both",
        ),
        (
            "/operations/plain",
            json!({"x-nats-stream": {"mode": "answers"}}),
            "plain: what streams was nothing, and is answers",
        ),
        (
            "/components/messages/add.item/payload",
            json!({"type": "string"}),
            "add item: the type was object, and is string",
        ),
        (
            "/components/messages/swap.item/payload",
            json!({"type": "string", "enum": ["admin"]}),
            "swap item: `guest` is gone",
        ),
        (
            "/components/messages/swap.answer/payload/format",
            json!("uint8"),
            "swap answer: the format was uint16, and is uint8",
        ),
        (
            "/components/messages/tail.answer/contentType",
            json!("application/msgpack"),
            "tail answer: the content type was application/json, and is application/msgpack",
        ),
        (
            "/components/messages/tail.stream-error/payload/anyOf/0/properties/code/const",
            json!("Aborted"),
            "tail stream-error.Damaged: the code was DataLoss, and is Aborted",
        ),
    ] {
        let found = changed(pointer, value);
        assert!(
            found.iter().any(|one| one == expected),
            "{pointer}: {found:#?}"
        );
    }
    // How much, and how often, both sides tell each other.
    for (pointer, value) in [
        ("/operations/tail/x-nats-stream/credit/items", json!(16)),
        ("/operations/tail/x-nats-stream/heartbeat-ms", json!(100)),
        (
            "/components/messages/tail.stream-error/payload/anyOf",
            json!([]),
        ),
        ("/operations/tail.stream", Value::Null),
    ] {
        assert_eq!(changed(pointer, value), [""; 0], "{pointer}");
    }
    let mut new = lines();
    new["operations"].as_object_mut().unwrap().remove("tail");
    assert_eq!(breaking(&new, &old), ["tail: the method is gone"]);
}

/// What a change from the second document to the first means: the breaking differences.
fn breaking(new: &Value, old: &Value) -> Vec<String> {
    let all = differences(old, new);
    all.iter()
        .filter(|one| one.breaking)
        .map(ToString::to_string)
        .collect()
}

const SAVE: &str = "/components/schemas/SaveProfile";
const PROFILE: &str = "/components/schemas/Profile";

#[test]
fn the_same_contract_has_no_differences() {
    assert_eq!(differences(&document(), &document()), []);
}

#[test]
fn what_is_removed_renamed_retyped_or_moved_breaks() {
    let old = document();
    for (pointer, value, expected) in [
        ("/operations/save", Value::Null, "save: the method is gone"),
        (
            "/channels/save/address",
            json!("profiles.store"),
            "save: the subject was profiles.save, and is profiles.store",
        ),
        (
            "/info/title",
            json!("people"),
            "service: the name was profiles, and is people",
        ),
        (
            "/operations/save/x-nats-stores/0/bucket",
            json!("people"),
            "save: the store `kv put user_profiles user.<request.id>` is gone, or has another bucket or key",
        ),
        (
            "/operations/save/x-nats-stores/0/key",
            json!("u.<request.id>"),
            "save: the store `kv put user_profiles user.<request.id>` is gone, or has another bucket or key",
        ),
        (
            "/operations/save/x-nats-stores/0/write",
            json!("after_reply"),
            "save store kv put user_profiles user.<request.id>: `write` was before_reply, and is after_reply",
        ),
        (
            "/components/messages/save.request/contentType",
            json!("application/msgpack"),
            "save request: the content type was application/json, and is application/msgpack",
        ),
        (
            &format!("{SAVE}/properties/email"),
            Value::Null,
            "save request.email: the field is gone, or has another name",
        ),
        (
            &format!("{SAVE}/properties/email/type"),
            json!("integer"),
            "save request.email: the type was string, and is integer",
        ),
        (
            &format!("{SAVE}/required"),
            json!(["id", "email", "tags"]),
            "save request.tags: the field may no longer be missing",
        ),
        (
            "/components/schemas/Address/properties/number/format",
            json!("uint8"),
            "save request.address(Address).number: the format was uint16, and is uint8",
        ),
        (
            &format!("{PROFILE}/properties/id"),
            Value::Null,
            "save answer.id: the field is gone, or has another name",
        ),
        (
            &format!("{PROFILE}/required"),
            json!(["email", "role", "friends"]),
            "save answer.id: the field may be missing now",
        ),
        (
            "/components/schemas/Role/enum",
            json!(["admin", "guest", "robot"]),
            "save answer.role: `robot` is new",
        ),
        (
            "/components/messages/save.error/payload/anyOf/0/properties/code/const",
            json!("Aborted"),
            "save error.EmailTaken: the code was AlreadyExists, and is Aborted",
        ),
        (
            "/components/messages/save.error/payload/anyOf/0/properties/details/properties/email",
            Value::Null,
            "save error.EmailTaken.email: the field is gone, or has another name",
        ),
        (
            "/components/messages/save.error/payload/anyOf/1/properties/details",
            Value::Null,
            "save error.Missing: its fields are gone",
        ),
    ] {
        let found = breaking(&with(pointer, value), &old);
        assert!(
            found.iter().any(|one| one == expected),
            "{pointer}: {found:#?}"
        );
    }
}

#[test]
fn what_is_added_and_may_be_missing_does_not_break() {
    let old = document();
    for (pointer, value) in [
        (
            format!("{SAVE}/properties/phone"),
            json!({"type": "string"}),
        ),
        (format!("{SAVE}/required"), json!(["id"])),
        (
            format!("{PROFILE}/properties/phone"),
            json!({"type": ["string", "null"]}),
        ),
        ("/operations/more".to_owned(), json!({})),
        (
            "/x-nats-buckets/user_profiles/ttl-ms".to_owned(),
            json!(1000),
        ),
        ("/operations/save/x-nats-timeout-ms".to_owned(), json!(1)),
        (format!("{SAVE}/description"), json!("text")),
        (
            "/components/messages/save.error/payload/anyOf".to_owned(),
            json!([]),
        ),
    ] {
        assert_eq!(breaking(&with(&pointer, value), &old), [""; 0], "{pointer}");
    }
}

#[test]
fn a_new_required_field_breaks_requests_and_what_is_kept_but_not_plain_answers() {
    let old = document();
    let added = |schema: &str| {
        let mut new = with(
            &format!("{schema}/properties/phone"),
            json!({"type": "string"}),
        );
        let required = new.pointer_mut(&format!("{schema}/required")).unwrap();
        required.as_array_mut().unwrap().push("phone".into());
        new
    };
    assert_eq!(
        breaking(&added(SAVE), &old),
        ["save request.phone: the field is new and required: old callers do not send it"]
    );
    let kept = added(PROFILE);
    assert_eq!(
        breaking(&kept, &old),
        ["save answer.phone: the field is new and required: entries that are kept do not have it"]
    );
    // The same, where no bucket keeps it.
    let remove = |document: &Value| {
        let mut document = document.clone();
        document["operations"]["save"]["x-nats-stores"] = json!([]);
        document
    };
    assert_eq!(breaking(&remove(&kept), &remove(&old)), [""; 0]);
}

fn versioned(version: &str, mut document: Value) -> AsyncApi {
    document["info"]["version"] = version.into();
    let mut contract = ProfilesContract::asyncapi();
    *contract.as_value_mut() = document;
    contract
}

#[test]
fn a_break_asks_for_the_version_that_is_due() {
    let broken = || with("/operations/save", Value::Null);
    for (old, new, due) in [
        ("1.4.0", "1.4.0", Some("2.0.0")),
        ("1.4.0", "1.5.0", Some("2.0.0")),
        ("0.4.2", "0.4.3", Some("0.5.0")),
        ("0.4.2", "0.5.0", None),
        ("1.4.0", "2.0.0", None),
        ("2.0.0-rc.1", "2.0.0-rc.2", None),
    ] {
        let old_document = versioned(old, document()).into_value();
        let checked = check_against(&old_document, &versioned(new, broken()));
        match (checked, due) {
            (
                Err(ContractError::Incompatible {
                    due: found,
                    breaking,
                    ..
                }),
                Some(due),
            ) => {
                assert_eq!(found, due);
                assert_eq!(breaking.len(), 1);
            }
            (Err(ContractError::NotRenewed { .. }) | Ok(_), None) => {}
            (other, _) => panic!("{old} to {new}: {other:?}"),
        }
    }
    let old = versioned("1.4.0", document()).into_value();
    let error = check_against(&old, &versioned("1.3.0", document())).unwrap_err();
    assert!(matches!(error, ContractError::Older { .. }), "{error}");
    let text = check_against(&old, &versioned("1.4.0", broken()))
        .unwrap_err()
        .to_string();
    assert!(text.contains("  - save: the method is gone\n"), "{text}");
    assert!(text.contains("version = \"2.0.0\""), "{text}");
}

#[test]
fn a_file_that_is_missing_or_damaged_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profiles.json");
    let contract = ProfilesContract::asyncapi();
    let error = check(&file, &contract).unwrap_err();
    assert!(
        error.to_string().contains("NATS_SERVICE_CONTRACT=update"),
        "{error}"
    );
    std::fs::write(&file, "{").unwrap();
    let error = check(&file, &contract).unwrap_err();
    assert!(matches!(error, ContractError::File { .. }), "{error}");
    std::fs::write(&file, contract.to_string()).unwrap();
    assert_eq!(check(&file, &contract).unwrap().differences, []);
    // Other JSON than ours is another contract, and no panic.
    for odd in ["null", "[]", "{\"operations\": 3, \"info\": []}"] {
        std::fs::write(&file, odd).unwrap();
        check(&file, &contract).unwrap_err();
    }
}

#[test]
fn forms_that_nothing_names_are_told_apart() {
    let old = ContactsContract::asyncapi().into_value();
    assert_eq!(differences(&old, &old), []);
    let mut new = old.clone();
    let town = "/components/schemas/Contact/anyOf/1/properties/town/type";
    *new.pointer_mut(town).unwrap() = json!("integer");
    let found = breaking(&new, &old);
    assert!(
        found[0].contains(".town: the type was string, and is integer"),
        "{found:#?}"
    );
}

#[test]
fn a_part_of_a_request_that_may_be_nothing_now_does_not_break_and_the_other_way_round_it_does() {
    let address = format!("{SAVE}/properties/address");
    let must = with(&address, json!({"$ref": "#/components/schemas/Address"}));
    assert_eq!(breaking(&document(), &must), [""; 0]);
    let found = breaking(&must, &document());
    assert!(found[0].contains("address: `null` is gone"), "{found:#?}");
}

#[test]
fn references_in_a_circle_end() {
    let circle = json!({"$ref": "#/components/schemas/Profile"});
    let odd = with(PROFILE, circle);
    assert!(!breaking(&odd, &document()).is_empty());
    assert_eq!(differences(&odd, &odd), []);
}
