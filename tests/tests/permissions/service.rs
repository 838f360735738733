//! Services with stores, what makes and changes their buckets, and their clients.

use super::{DENIED, Note, as_user, note, permissions, server, user};
use async_nats::jetstream;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use nats_service::{Any, Running, Server, nats_service};
use nats_service_tests::{PATIENCE, soon};

/// Larger than a message, so that it travels as an object.
const LARGE: u32 = 3_000_000;

#[nats_service(version = "1.0.0")]
trait Notes {
    #[kv_store(bucket = "notes", key = "note.<id>", history = 5, provision = "none")]
    async fn save(&self, id: String, text: String) -> Note;

    #[kv_store(
        bucket = "notes",
        key = "sure.<id>",
        write = "before_reply",
        provision = "none"
    )]
    async fn save_surely(&self, id: String, text: String) -> Note;

    #[kv_evict(bucket = "notes", key = "note.<id>")]
    async fn forget(&self, id: String);

    #[object_store(bucket = "files", key = "file.<id>", provision = "none")]
    async fn render(&self, id: String, bytes: u32) -> Note;

    #[object_evict(bucket = "files", key = "file.<id>")]
    async fn discard(&self, id: String);
}

/// The same, with buckets that it makes itself.
#[nats_service(version = "1.0.0")]
trait Makers {
    #[kv_store(bucket = "made", key = "note.<id>", history = 2)]
    async fn save(&self, id: String) -> String;

    #[object_store(bucket = "made_files", key = "file.<id>")]
    async fn render(&self, id: String) -> String;
}

/// The same, with settings of its own for buckets that are there.
#[nats_service(version = "1.0.0", name = "notes", subject = "notes")]
trait Changers {
    #[kv_store(bucket = "notes", key = "note.<id>", history = 7, provision = "update")]
    async fn save(&self, id: String) -> String;

    #[object_store(
        bucket = "files",
        key = "file.<id>",
        description = "changed",
        provision = "update"
    )]
    async fn render(&self, id: String) -> String;
}

struct Desk;

impl Changers for Desk {
    async fn save(&self, id: String) -> String {
        id
    }

    async fn render(&self, id: String) -> String {
        id
    }
}

impl Notes for Desk {
    async fn save(&self, id: String, text: String) -> Note {
        Note { id, text }
    }

    async fn save_surely(&self, id: String, text: String) -> Note {
        Note { id, text }
    }

    async fn forget(&self, _id: String) {}

    async fn render(&self, id: String, bytes: u32) -> Note {
        let text = "x".repeat(bytes as usize);
        Note { id, text }
    }

    async fn discard(&self, _id: String) {}
}

impl Makers for Desk {
    async fn save(&self, id: String) -> String {
        id
    }

    async fn render(&self, id: String) -> String {
        id
    }
}

/// What `Notes` is.
const SERVICE: [&str; 3] = [
    "A service",
    "A service that keeps answers in a KV bucket",
    "A service that keeps answers in an object bucket",
];

#[nats_service(version = "1.0.0", name = "notes", subject = "notes")]
trait Cached {
    #[kv_cache(
        bucket = "notes",
        key = "cached.<id>",
        ttl = "1h",
        single_flight = "cluster",
        write = "before_reply",
        lookup_timeout = "5s",
        provision = "none"
    )]
    async fn find(&self, id: String) -> Note;
}

impl Cached for Desk {
    async fn find(&self, id: String) -> Note {
        note(&id, "found")
    }
}

async fn start(js: &jetstream::Context) -> Running {
    let server = Server::new(js.client()).with_jetstream(js.clone());
    server
        .serve(NotesServer::new(Desk))
        .start()
        .await
        .expect("a service")
}

#[tokio::test]
async fn a_service_with_a_cache_needs_no_more() {
    let roles = [
        "A service",
        "A service that keeps answers in a KV bucket",
        "A service with a cache in a KV bucket",
    ];
    let server = server(&[user("service", &roles), user("client", &["A client"])]).await;
    let js = as_user(&server, "service").await;
    let running = Server::new(js.client()).with_jetstream(js);
    let running = running.serve(CachedServer::new(Desk)).start().await;
    let client = CachedClient::new(as_user(&server, "client").await.client());
    let from = async || {
        let reply = soon("a call", client.find("a".to_owned()).reply()).await;
        let reply = reply.expect("an answer");
        let from = reply.headers.get("Nats-Service-Cache");
        from.map(|from| from.as_str().to_owned())
    };
    assert_eq!((from().await, from().await.as_deref()), (None, Some("hit")));
    let stopped = running.expect("a service").shutdown(PATIENCE).await;
    stopped.expect("nothing is left");
}

/// Everything that a service of this kind does, with these rights and no more; and everything that its client does.
#[tokio::test]
async fn a_service_and_its_client_need_no_more() {
    let server = server(&[
        user("service", &SERVICE),
        user("client", &["A client", "A reader of an object bucket"]),
    ])
    .await;
    let running = start(&as_user(&server, "service").await).await;
    let client = as_user(&server, "client").await.client();
    let notes = NotesClient::new(client.clone());

    let saved = notes.save("a".to_owned(), "1".to_owned()).await;
    assert_eq!(saved.expect("an answer"), note("a", "1"));
    let surely = notes.save_surely("a".to_owned(), "1".to_owned());
    let surely = surely.reply().await.expect("an answer");
    assert!(surely.revision.is_some());
    let large = notes.render("a".to_owned(), LARGE).timeout(PATIENCE).await;
    assert_eq!(large.expect("an answer").text.len(), LARGE as usize);
    notes
        .save("b".to_owned(), "1".to_owned())
        .await
        .expect("it");
    notes.forget("b".to_owned()).await.expect("an answer");
    notes
        .render("b".to_owned(), 500_000)
        .await
        .expect("an answer");
    notes.discard("b".to_owned()).await.expect("an answer");
    let report = running.shutdown(PATIENCE).await.expect("all is stored");
    assert!(report.unwritten.is_empty());

    let stores = NotesStores::new(as_user(&server, "operator").await);
    let kept = stores.save().matching(Any).expect("a filter");
    let kept = kept.keys().await.expect("keys");
    let kept: Vec<String> = kept.try_collect().await.expect("keys");
    assert_eq!(kept, ["note.a"]);
    let file = |id: &str| stores.render().at(id).expect("a name");
    let large = file("a").info().await.expect("it").expect("the object");
    assert!(file("b").info().await.expect("it").is_none());
    // The chunks of what was discarded are gone: what is left is one object, and the mark of the other's deletion.
    let left = stores.render().status().await.expect("it");
    assert!(left.bytes < large.size + 10_000, "{left:?}");
}

#[tokio::test]
async fn discovery_finds_a_service_with_only_its_rights() {
    let server = server(&[user("service", &SERVICE)]).await;
    let _running = start(&as_user(&server, "service").await).await;
    let operator = as_user(&server, "operator").await.client();
    let ask = async |subject: String| {
        let reply = soon(&subject, operator.request(subject.clone(), Bytes::new())).await;
        let reply = reply.unwrap_or_else(|error| panic!("{subject}: {error}"));
        serde_json::from_slice::<serde_json::Value>(&reply.payload).expect("JSON")
    };
    let id = ask("$SRV.PING".to_owned()).await["id"].clone();
    let id = id.as_str().expect("an id");
    for verb in ["PING", "INFO", "STATS"] {
        for place in ["", ".notes", &format!(".notes.{id}")] {
            let answer = ask(format!("$SRV.{verb}{place}")).await;
            assert_eq!(answer["name"], "notes");
        }
    }
}

#[tokio::test]
async fn a_service_that_makes_its_buckets_needs_the_rights_to_make_them() {
    let made = |roles: &[&str]| {
        let subjects = roles.iter().flat_map(|role| permissions(role).0);
        let renamed = subjects.map(|subject| {
            subject
                .replace("_notes", "_made")
                .replace(".notes.", ".made.")
                .replace("_files", "_made_files")
                .replace(".files.", ".made_files.")
        });
        renamed.collect::<Vec<_>>()
    };
    let plain = made(&SERVICE);
    let makers = ["A maker of a KV bucket", "A maker of an object bucket"];
    let publish = [plain.clone(), made(&makers)].concat();
    let (_, subscribe) = permissions("A service");
    let subscribe: Vec<String> = subscribe
        .iter()
        .map(|subject| subject.replace("notes", "makers"))
        .collect();
    let user = |name: &str, publish: &[String]| {
        format!(
            "{{ user: {name}, password: p, permissions: {{ publish: {publish:?}, subscribe: {subscribe:?} }} }}"
        )
    };
    let server = server(&[user("maker", &publish), user("plain", &plain)]).await;
    let serve = async |name: &str| {
        let mut js = as_user(&server, name).await;
        js.set_timeout(DENIED * 4);
        let server = Server::new(js.client()).with_jetstream(js.clone());
        server.serve(MakersServer::new(Desk)).start().await
    };
    let denied = soon("a denied start", serve("plain")).await;
    let text = denied.expect_err("it may not make them").to_string();
    assert!(text.contains("STREAM.CREATE.KV_made"), "{text}");
    let running = soon("a start", serve("maker")).await.expect("it may");
    let client = MakersClient::new(as_user(&server, "operator").await.client());
    assert_eq!(client.save("a".to_owned()).await.expect("an answer"), "a");
    running.shutdown(PATIENCE).await.expect("all is stored");
}

#[tokio::test]
async fn a_service_that_changes_its_buckets_needs_the_rights_to_change_them() {
    let roles = [
        &SERVICE[..],
        &["A maker of a KV bucket", "A maker of an object bucket"],
    ];
    let server = server(&[user("changer", &roles.concat())]).await;
    let js = as_user(&server, "changer").await;
    let service = Server::new(js.client()).with_jetstream(js);
    let started = service.serve(ChangersServer::new(Desk)).start();
    let _running = soon("a start", started).await.expect("it may");
    let stores = ChangersStores::new(as_user(&server, "operator").await);
    assert_eq!(stores.save().status().await.expect("it").history, 7);
    let files = stores.render().status().await.expect("it");
    assert_eq!(files.description.as_deref(), Some("changed"));
}
