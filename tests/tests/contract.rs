//! The contract as a document: what is in it, and what a change of it means.

use nats_service::contract::{AsyncApi, ContractError, check, check_against, differences};
use nats_service::{ByteStream, Error, Server, ServiceError, Stream, message, nats_service};
use nats_service_tests::Nats;
use nats_service_tests::desk::ask;
use nats_service_tests::foreign::{Language, Peer};
use serde_json::{Value, json};
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

fn document() -> Value {
    ProfilesContract::asyncapi().into_value()
}

#[test]
fn the_document_says_subjects_queue_groups_time_outs_and_descriptions() {
    let document = document();
    assert_eq!(document["asyncapi"], "3.1.0");
    assert_eq!(
        document["info"],
        json!({
            "title": "profiles", "version": "1.4.0", "description": "User profiles.",
            "x-nats-metadata": {"team": "blue"},
        })
    );
    let names: Vec<_> = document["operations"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["count", "delete", "export", "here", "note", "save"]);
    assert_eq!(document["channels"]["save"]["address"], "profiles.save");
    assert_eq!(document["channels"]["save.reply"]["address"], Value::Null);
    let save = &document["operations"]["save"];
    assert_eq!(save["action"], "receive");
    assert_eq!(save["summary"], "Saves a profile.");
    assert_eq!(save["bindings"]["nats"]["queue"], "q");
    assert_eq!(save["x-nats-timeout-ms"], 2000);
    assert_eq!(save["x-nats-metadata"], json!({"cost": "low"}));
    assert_eq!(document["operations"]["count"]["bindings"], Value::Null);
}

#[test]
fn the_document_says_buckets_keys_and_times_to_live() {
    let document = document();
    assert_eq!(
        document["operations"]["save"]["x-nats-stores"],
        json!([{
            "engine": "kv", "action": "put", "bucket": "user_profiles", "key": "user.<request.id>",
            "write": "before_reply",
        }])
    );
    assert_eq!(
        document["operations"]["delete"]["x-nats-stores"][0]["action"],
        "evict"
    );
    assert_eq!(
        document["x-nats-buckets"]["user_profiles"],
        json!({"engine": "kv", "history": 5, "ttl-ms": 3_600_000})
    );
    assert_eq!(document["x-nats-buckets"]["exports"]["engine"], "object");
}

#[test]
fn every_message_has_a_schema() {
    let document = document();
    let payload = |name: &str| &document["components"]["messages"][name]["payload"];
    let schema = |name: &str| &document["components"]["schemas"][name];
    assert_eq!(
        payload("save.request")["$ref"],
        "#/components/schemas/SaveProfile"
    );
    assert_eq!(
        schema("SaveProfile")["required"],
        json!(["id", "email"]),
        "what has a default, or may be null, may be missing"
    );
    assert_eq!(
        schema("SaveProfile")["properties"]["tags"]["description"],
        "Free words."
    );
    assert_eq!(schema("Role")["enum"], json!(["admin", "guest"]));
    let delete = payload("delete.request");
    assert_eq!(delete["properties"]["id"]["format"], "uint64");
    assert_eq!(delete["required"], json!(["id"]));
    assert_eq!(payload("delete.answer")["type"], "null");
    assert_eq!(payload("count.request")["type"], "null");
    assert_eq!(payload("export.answer")["type"], "string");
    assert_eq!(schema("Note")["properties"]["text"]["type"], "string");
}

#[test]
fn errors_have_their_codes_and_their_fields() {
    let document = document();
    assert_eq!(
        document["operations"]["save"]["x-nats-errors"],
        json!([
            {"variant": "EmailTaken", "code": "AlreadyExists", "number": 409},
            {"variant": "Missing", "code": "NotFound", "number": 404},
            {"variant": "Closed", "code": "Unavailable", "number": 503},
        ])
    );
    let error = &document["components"]["messages"]["save.error"];
    assert_eq!(error["contentType"], "application/json");
    let any = error["payload"]["anyOf"].as_array().unwrap();
    assert_eq!(any.len(), 4);
    let taken = &any[0];
    assert_eq!(taken["description"], "Somebody else has it.");
    let details = &taken["properties"]["details"];
    assert_eq!(details["properties"]["email"]["type"], "string");
    assert_eq!(details["required"], json!(["email"]));
    assert_eq!(any[1]["properties"]["details"]["type"], "array");
    assert_eq!(any[2]["properties"]["details"], Value::Null);
    assert_eq!(any[3]["$ref"], "#/components/schemas/NatsServiceError");
}

fn lines() -> Value {
    LinesContract::asyncapi().into_value()
}

#[test]
fn streams_are_described_as_frames_with_the_channel_by_which_the_caller_speaks() {
    let document = lines();
    let pattern = |message: &str| {
        let message = &document["components"]["messages"][message];
        let header = &message["headers"]["properties"]["Nats-Service-Stream"];
        header["pattern"].as_str().unwrap_or_default().to_owned()
    };
    let payload = |message: &str| &document["components"]["messages"][message]["payload"];
    let keys = |channel: &str| {
        let messages = document["channels"][channel]["messages"].as_object();
        let keys = messages.into_iter().flatten().map(|(name, _)| name.clone());
        keys.collect::<Vec<_>>().join(" ")
    };
    let address = json!({"$ref": "#/components/schemas/Address"});

    // Answers: the request opens, an answer is an item, and either error is known.
    assert_eq!(payload("tail.request")["type"], "string");
    assert!(pattern("tail.request").starts_with("^open("));
    assert_eq!(payload("tail.answer"), &address);
    assert!(pattern("tail.answer").starts_with("^items("));
    let variant = |message: &str| &payload(message)["anyOf"][0]["properties"]["variant"]["const"];
    assert_eq!(variant("tail.error"), "EmailTaken");
    assert_eq!(variant("tail.stream-error"), "Damaged");
    assert!(pattern("tail.stream-error").starts_with("^error("));
    assert_eq!(
        keys("tail.reply"),
        "answer cancel end error open state stream-error"
    );
    assert_eq!(keys("tail.stream"), "cancel state");
    assert_eq!(
        document["operations"]["tail"]["x-nats-stream"],
        json!({
            "mode": "answers",
            "credit": {"items": 1024, "bytes": 262_144},
            "heartbeat-ms": 2000,
            "silence-ms": 10_000,
            "errors": [{"variant": "Damaged", "code": "DataLoss", "number": 500}],
        })
    );

    // Requests: items go by a channel of their own, the one answer is the end.
    assert_eq!(payload("add.request")["type"], "integer");
    assert_eq!(payload("add.item"), &address);
    assert_eq!(payload("add.answer")["format"], "uint32");
    assert!(pattern("add.answer").starts_with("^end("));
    assert_eq!(keys("add.reply"), "answer cancel error open state");
    assert_eq!(keys("add.stream"), "cancel end item state");
    assert_eq!(document["channels"]["add.stream"]["address"], Value::Null);
    let stream = &document["operations"]["add.stream"];
    assert_eq!(
        (&stream["action"], &stream["x-nats-stream-of"]),
        (&json!("receive"), &json!("add"))
    );
    assert_eq!(
        document["operations"]["add"]["x-nats-stream"]["mode"],
        "requests"
    );

    // Both.
    assert_eq!(
        document["operations"]["swap"]["x-nats-stream"]["mode"],
        "both"
    );
    assert_eq!(
        payload("swap.item"),
        &json!({"$ref": "#/components/schemas/Role"})
    );
    assert_eq!(payload("swap.answer")["format"], "uint16");

    // Whoever streams nothing has nothing of it.
    assert_eq!(
        document["operations"]["plain"]["x-nats-stream"],
        Value::Null
    );
    assert_eq!(document["operations"]["plain.stream"], Value::Null);
    assert!(
        !ProfilesContract::asyncapi()
            .to_string()
            .contains("nats-service-stream")
    );
}

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

#[test]
fn a_contract_without_schemas_compiles_as_long_as_nobody_asks_for_its_document() {
    assert_eq!(SilentContract::SPEC.methods.len(), 1);
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
fn references_in_a_circle_end() {
    let circle = json!({"$ref": "#/components/schemas/Profile"});
    let odd = with(PROFILE, circle);
    assert!(!breaking(&odd, &document()).is_empty());
    assert_eq!(differences(&odd, &odd), []);
}

#[tokio::test]
async fn the_official_parser_finds_nothing_to_object_to() {
    let nats = Nats::start().await;
    let mut peer = Peer::start(Language::Node, nats.server.url()).await;
    for contract in [
        ProfilesContract::asyncapi(),
        LinesContract::asyncapi(),
        EmptyContract::asyncapi(),
    ] {
        let document = contract.to_string();
        let checked = peer
            .must("asyncapi_check", json!({ "document": document }))
            .await;
        assert_eq!(checked["diagnostics"], json!([]), "{contract}");
    }
    for (contract, operations) in [
        (
            ProfilesContract::asyncapi(),
            json!(["count", "delete", "export", "here", "note", "save"]),
        ),
        (
            LinesContract::asyncapi(),
            json!([
                "add",
                "add.stream",
                "plain",
                "swap",
                "swap.stream",
                "tail",
                "tail.stream"
            ]),
        ),
    ] {
        let document = contract.to_string();
        let checked = peer
            .must("asyncapi_check", json!({ "document": document }))
            .await;
        assert_eq!(checked["operations"], operations);
    }
    // It does look: a document that is wrong is found out.
    let wrong = with(
        "/operations/save/channel",
        json!({"$ref": "#/channels/nowhere"}),
    );
    let checked = peer
        .must("asyncapi_check", json!({ "document": wrong.to_string() }))
        .await;
    assert_ne!(checked["diagnostics"], json!([]));
}

#[nats_service]
trait Empty {}

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

#[tokio::test]
async fn discovery_shows_the_short_form_beside_what_the_trait_says() {
    let nats = Nats::start().await;
    let server = Server::new(nats.client.clone())
        .serve(GreeterServer::new(Clerk))
        .serve(SilentServer::new(Clerk))
        .serve(LinesServer::new(Clerk))
        .describe(&LinesContract::asyncapi())
        .describe(&GreeterContract::asyncapi());
    let _running = server.start().await.unwrap();
    let info = ask(&nats.client, "$SRV.INFO.greeter", "").await;
    let info: Value = serde_json::from_slice(&info.payload).unwrap();
    assert_eq!(
        info["metadata"],
        json!({"asyncapi": "3.1.0", "contract": "mine"}),
        "what the trait says wins"
    );
    assert_eq!(
        info["endpoints"][0]["metadata"],
        json!({
            "request": "a name",
            "answer": "Address {number: uint16, street: string}",
            "errors": "EmailTaken (AlreadyExists), Missing (NotFound), Closed (Unavailable)",
            "stores": "kv put said/said.<name> for 3600s",
        })
    );
    // One that streams says so.
    let short = ask(&nats.client, "$SRV.INFO.lines", "").await;
    let short: Value = serde_json::from_slice(&short.payload).unwrap();
    let endpoints = short["endpoints"].as_array().unwrap().iter();
    let of = |name: &str| {
        let mut endpoints = endpoints.clone();
        endpoints.find(|one| one["name"] == name).unwrap()["metadata"].clone()
    };
    let tail = of("tail");
    assert_eq!(
        tail["answer"],
        "stream of Address {number: uint16, street: string}"
    );
    assert_eq!(tail["ends"], "Damaged (DataLoss)");
    assert_eq!(
        of("add")["requests"],
        "stream of Address {number: uint16, street: string}"
    );
    assert_eq!(of("add")["answer"], "uint32");
    assert_eq!(endpoints.len(), 4);
    // One that was not described shows what its trait says, which is nothing.
    let info = ask(&nats.client, "$SRV.INFO.silent", "").await;
    let info: Value = serde_json::from_slice(&info.payload).unwrap();
    assert_eq!(info["metadata"], json!({}));
}
