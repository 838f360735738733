//! What is in the document, and in its short form.

use super::*;
use nats_service::Server;
use nats_service_tests::Nats;
use nats_service_tests::desk::ask;
use nats_service_tests::foreign::{Language, Peer};
use serde_json::json;

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
fn a_contract_without_schemas_compiles_as_long_as_nobody_asks_for_its_document() {
    assert_eq!(SilentContract::SPEC.methods.len(), 1);
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
