//! What bodies and entries are written in: the codecs in the box, one of a user's own, and what is said of any other.

use async_nats::HeaderMap;
use bytes::Bytes;
use nats_service::serde::Serialize;
use nats_service::serde::de::DeserializeSeed;
use nats_service::{
    CallError, Codec, Error, Format, FormatError, KvStore, ObjectStore, Server, message,
    nats_service,
};
use nats_service_tests::{Nats, connect, soon};
use std::borrow::Cow;

/// CBOR, as a user would bring it along.
struct Cbor;

impl Format for Cbor {
    const NAME: &'static str = "CBOR";
    const CONTENT_TYPE: &'static str = "application/cbor";
    const UNIT: &'static [u8] = &[0x80];

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), FormatError> {
        let buffer = cbor4ii::core::utils::BufWriter::new(std::mem::take(out));
        let mut serializer = cbor4ii::serde::Serializer::new(buffer);
        value.serialize(&mut serializer)?;
        *out = serializer.into_inner().into_inner();
        Ok(())
    }

    fn decode<'de, S: DeserializeSeed<'de>>(
        bytes: &'de [u8],
        seed: S,
    ) -> Result<S::Value, FormatError> {
        let reader = cbor4ii::core::utils::SliceReader::new(bytes);
        let mut deserializer = cbor4ii::serde::Deserializer::new(reader);
        let value = seed.deserialize(&mut deserializer)?;
        use cbor4ii::core::dec::Read as _;
        if !deserializer.into_inner().fill(1)?.as_ref().is_empty() {
            return Err("something follows the value".into());
        }
        Ok(value)
    }
}

#[message]
#[derive(Debug, Clone, PartialEq)]
struct Note {
    id: String,
    text: String,
    bytes: Vec<u8>,
    maybe: Option<f64>,
}

fn note(id: &str) -> Note {
    Note {
        id: id.to_owned(),
        text: "täxt".to_owned(),
        bytes: vec![0, 255],
        maybe: Some(1.5),
    }
}

macro_rules! notes {
    ($name:ident, $codec:tt) => {
        #[nats_service(name = "notes", subject = "notes", version = "1.0.0", codec = $codec)]
        trait $name {
            #[kv_store(bucket = "notes", key = "note.<id>", write = "before_reply")]
            async fn save(&self, id: String, text: Cow<'_, str>) -> Result<Note, Error>;

            #[object_store(bucket = "files", key = "file.<id>", write = "before_reply")]
            async fn render(&self, id: String, size: usize) -> Note;

            async fn ping(&self);

            async fn any(&self, value: serde_json::Value) -> serde_json::Value;
        }

        impl $name for Desk {
            async fn save(&self, id: String, text: Cow<'_, str>) -> Result<Note, Error> {
                if text == "fail" {
                    return Err(Error::not_found("no such note").with_details(7.into()));
                }
                Ok(Note {
                    text: text.into_owned(),
                    ..note(&id)
                })
            }

            async fn render(&self, id: String, size: usize) -> Note {
                Note {
                    text: "x".repeat(size),
                    ..note(&id)
                }
            }

            async fn ping(&self) {}

            async fn any(&self, value: serde_json::Value) -> serde_json::Value {
                value
            }
        }
    };
}

struct Desk;

notes!(JsonNotes, "json");
notes!(PackedNotes, "msgpack");
notes!(CborNotes, Cbor);

const CBOR: Codec = Codec::of::<Cbor>();

async fn served(service: impl FnOnce(Server) -> Server) -> (Nats, nats_service::Running) {
    let nats = Nats::start().await;
    let (client, js) = connect(&nats.server).await;
    let server = service(Server::new(client).with_jetstream(js));
    let running = soon("a start", server.start()).await.expect("a server");
    (nats, running)
}

/// What another language's client sends, and what it gets.
async fn raw(
    nats: &Nats,
    subject: &'static str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (Option<String>, Option<String>, Bytes) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let sent = nats.client.request_with_headers(subject, map, body.into());
    let reply = soon("a reply", sent).await.expect("a reply");
    let header = |name: &str| {
        let headers = reply.headers.as_ref()?;
        Some(headers.get(name)?.as_str().to_owned())
    };
    (
        header("Content-Type"),
        header("Nats-Service-Error"),
        reply.payload.clone(),
    )
}

#[tokio::test]
async fn a_codec_of_one_s_own_carries_calls_entries_objects_and_errors() {
    let (nats, _running) = served(|server| server.serve(CborNotesServer::new(Desk))).await;
    let client = CborNotesClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let saved = client.save("a".to_string(), Cow::Borrowed("täxt")).reply();
    let saved = soon("an answer", saved).await.unwrap();
    assert_eq!(saved.value, note("a"));
    assert_eq!(
        saved.headers.get("Content-Type").unwrap().as_str(),
        "application/cbor"
    );
    soon("an answer", client.ping()).await.unwrap();
    // An empty body is no argument.
    assert_eq!(raw(&nats, "notes.ping", &[], "").await.2[..], [0x80]);

    // Entries say what they are, and any store of this process reads them by that.
    let entry = nats.js.get_key_value("notes").await.unwrap();
    let stream = nats.js.get_stream("KV_notes").await.unwrap();
    let message = stream
        .direct_get_last_for_subject("$KV.notes.note.a")
        .await
        .unwrap();
    assert_eq!(
        message.headers.get("Content-Type").unwrap().as_str(),
        "application/cbor"
    );
    assert_eq!(CBOR.decode::<Note>(&message.payload).unwrap(), note("a"));
    drop(entry);
    let store = KvStore::<Note>::bind(nats.js.clone(), "notes").unwrap();
    assert_eq!(
        store
            .key("note.a")
            .unwrap()
            .get()
            .await
            .unwrap()
            .unwrap()
            .into_value(),
        note("a")
    );

    // One that fits no message is fetched from its object, in its codec.
    let large = soon("an answer", client.render("b".to_string(), 2_000_000))
        .await
        .unwrap();
    assert_eq!(large.text.len(), 2_000_000);
    let store = ObjectStore::<Note>::bind(nats.js.clone(), "files").unwrap();
    let object = store
        .object("file.b")
        .unwrap()
        .get()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(object.value.text.len(), 2_000_000);

    // An error is JSON, so that everybody can read it.
    let failed = client.save("a".to_string(), Cow::Borrowed("fail"));
    let error = soon("an error", failed).await.unwrap_err();
    let CallError::Service(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (error.message(), error.details()),
        ("no such note", &7.into())
    );
}

#[tokio::test]
async fn an_answer_follows_accept_and_its_entry_follows_the_contract() {
    let (nats, _running) = served(|server| {
        let server = server.with_codec(CBOR).expect("a codec");
        server.serve(JsonNotesServer::new(Desk))
    })
    .await;
    let body = r#"{"id":"a","text":"t"}"#;
    let msgpack = Some("application/msgpack".to_owned());
    let json = Some("application/json".to_owned());
    let cases = [
        (&[][..], json.clone(), Codec::Json),
        (&[("Accept", "application/json")], json.clone(), Codec::Json),
        (
            &[("Accept", "application/msgpack")],
            msgpack.clone(),
            Codec::MessagePack,
        ),
        (
            &[("Accept", "text/html, application/cbor;q=0.9, */*;q=0.1")],
            Some("application/cbor".into()),
            CBOR,
        ),
    ];
    for (headers, content_type, codec) in cases {
        let (said, error, answer) = raw(&nats, "notes.save", headers, body).await;
        assert_eq!((said, error), (content_type, None), "{headers:?}");
        assert_eq!(codec.decode::<Note>(&answer).unwrap().id, "a");
        // Who asked does not decide what others find.
        let stream = nats.js.get_stream("KV_notes").await.unwrap();
        let entry = stream
            .direct_get_last_for_subject("$KV.notes.note.a")
            .await
            .unwrap();
        assert_eq!(
            entry.headers.get("Content-Type").unwrap().as_str(),
            "application/json"
        );
        assert_eq!(Codec::Json.decode::<Note>(&entry.payload).unwrap().id, "a");
    }
    // A request in another codec is answered in it, unless it wants something else.
    let packed = Codec::MessagePack
        .encode(&serde_json::json!({"id": "a", "text": "t"}))
        .unwrap();
    let typed = ("Content-Type", "application/msgpack");
    let (said, _, answer) = raw(&nats, "notes.save", &[typed], packed.clone()).await;
    assert_eq!(
        (
            said,
            Codec::MessagePack
                .decode::<Note>(&answer)
                .unwrap()
                .id
                .as_str()
        ),
        (msgpack, "a")
    );
    let (said, _, answer) = raw(
        &nats,
        "notes.save",
        &[typed, ("Accept", "application/json")],
        packed,
    )
    .await;
    assert_eq!(
        (
            said,
            Codec::Json.decode::<Note>(&answer).unwrap().id.as_str()
        ),
        (json, "a")
    );

    // A large answer is kept as the contract says, and found by whoever asked in another codec.
    for codec in [Codec::Json, Codec::MessagePack, CBOR] {
        let client = JsonNotesClient::new(nats.client.clone()).with_codec(codec);
        let saved = soon(
            "an answer",
            client.save("c".to_string(), Cow::Borrowed("t")),
        )
        .await;
        assert_eq!(saved.unwrap().id, "c", "{codec:?}");
        let large = soon("an answer", client.render("d".to_string(), 2_000_000))
            .await
            .unwrap();
        assert_eq!(large.text.len(), 2_000_000, "{codec:?}");
    }
}

#[tokio::test]
async fn a_type_that_is_not_spoken_is_refused_with_those_that_are() {
    let (nats, _running) = served(|server| server.serve(PackedNotesServer::new(Desk))).await;
    for (headers, what) in [
        (
            [("Content-Type", "text/xml")],
            "a body of type `text/xml` is not understood",
        ),
        (
            [("Accept", "text/xml, text/html")],
            "an answer of type `text/xml, text/html` cannot be given",
        ),
        ([("Accept", "")], "an answer of type `` cannot be given"),
    ] {
        let (_, error, body) = raw(&nats, "notes.ping", &headers, "").await;
        let error = error.expect("an error");
        assert!(
            error.contains(what)
                && error.contains("spoken here: `application/msgpack`, `application/json`"),
            "{error}"
        );
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["code"], "InvalidArgument");
    }
    // Discovery says it too, where it is not JSON.
    let info = soon("a reply", nats.client.request("$SRV.INFO.notes", "".into()))
        .await
        .unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    let spoken = info["metadata"]["content-types"].as_str().expect("types");
    assert!(
        spoken.starts_with("application/msgpack, application/json"),
        "{spoken}"
    );

    // The client names what it cannot read.
    let mut requests = nats.client.subscribe("other.get").await.unwrap();
    #[nats_service]
    trait Other {
        async fn get(&self) -> u8;
    }
    impl Other for Desk {
        async fn get(&self) -> u8 {
            7
        }
    }
    let other = OtherClient::new(nats.client.clone());
    let _ = OtherServer::new(Desk);
    let call = tokio::spawn(other.get().into_future());
    use futures_util::StreamExt as _;
    let request = soon("a request", requests.next()).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "text/xml");
    let reply = request.reply.unwrap();
    nats.client
        .publish_with_headers(reply, headers, "<x/>".into())
        .await
        .unwrap();
    let error = soon("an end", call).await.unwrap().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`text/xml` is read by no codec here; there are `application/json`"),
        "{error}"
    );
}

#[tokio::test]
async fn what_trails_and_what_is_nested_without_end_is_refused_in_every_codec() {
    let (nats, _running) = served(|server| server.serve(CborNotesServer::new(Desk))).await;
    for (codec, open, null) in [
        (Codec::Json, b'[', &b"null"[..]),
        (Codec::MessagePack, 0x91, &[0xc0]),
        (CBOR, 0x81, &[0xf6]),
    ] {
        let typed = [("Content-Type", codec.content_type())];
        let (_, error, _) = raw(&nats, "notes.any", &typed, vec![open; 100_000]).await;
        assert!(error.is_some(), "{codec:?} is nested without end");
        let trailing = [null, null].concat();
        let (_, error, _) = raw(&nats, "notes.any", &typed, trailing).await;
        assert!(error.is_some(), "{codec:?} takes what trails");
        let (_, error, _) = raw(&nats, "notes.any", &typed, null.to_vec()).await;
        assert_eq!(error, None, "{codec:?}");
    }
}

#[tokio::test]
async fn two_codecs_of_one_media_type_are_refused() {
    struct Other;
    impl Format for Other {
        const NAME: &'static str = "another JSON";
        const CONTENT_TYPE: &'static str = "Application/JSON";
        const UNIT: &'static [u8] = b"null";
        fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), FormatError> {
            Ok(nats_service_json(value, out)?)
        }
        fn decode<'de, S: DeserializeSeed<'de>>(
            bytes: &'de [u8],
            seed: S,
        ) -> Result<S::Value, FormatError> {
            Ok(seed.deserialize(&mut serde_json::Deserializer::from_slice(bytes))?)
        }
    }
    fn nats_service_json<T: Serialize + ?Sized>(
        value: &T,
        out: &mut Vec<u8>,
    ) -> serde_json::Result<()> {
        serde_json::to_writer(out, value)
    }
    let error = Codec::of::<Other>().register().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`Application/JSON` is JSON already, and cannot be another JSON too"),
        "{error}"
    );
    CBOR.register().unwrap();
    CBOR.register().expect("the same again is no other");
}
