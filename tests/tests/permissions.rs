//! The permissions that `docs/SECURITY.md` names are enough, role by role: a server with a user for each, who may do that
//! and nothing else.

#[path = "permissions/streaming.rs"]
mod streaming;

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use nats_service::{
    Any, KvStore, Newer, ObjectEvent, ObjectStore, ReadLevel, Running, Server, StoreError,
    WatchEvent, message, nats_service,
};
use nats_service_testkit::TestServer;
use nats_service_tests::{PATIENCE, soon};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// How long a read waits that is to be denied.
const DENIED: Duration = Duration::from_millis(500);
/// Larger than a message, so that it travels as an object.
const LARGE: u32 = 3_000_000;

#[message]
#[derive(Debug, PartialEq)]
struct Note {
    id: String,
    text: String,
}

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

/// The roles' tables of `docs/SECURITY.md`, by their headings, with the names that its text has as placeholders filled in.
fn permissions(role: &str) -> (Vec<String>, Vec<String>) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = tests
        .parent()
        .expect("the workspace")
        .join("docs/SECURITY.md");
    let text = std::fs::read_to_string(file).expect("the document");
    let section = text
        .split("\n### ")
        .find(|section| section.lines().next() == Some(role))
        .unwrap_or_else(|| panic!("no section `{role}`"));
    let section = section.split("\n## ").next().unwrap_or(section);
    let (mut publish, mut subscribe) = (Vec::new(), Vec::new());
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [subject, direction, _] = cells[..] else {
            panic!("{row}");
        };
        let subject = subject
            .trim_matches('`')
            .replace("<bucket>", BUCKETS[usize::from(role.contains("object"))])
            .replace("<subject>", "notes")
            .replace("<name>", "notes");
        match direction {
            "publish" => publish.push(subject),
            "subscribe" => subscribe.push(subject),
            other => panic!("`{other}` in {row}"),
        }
    }
    assert!(!publish.is_empty(), "`{role}` names subjects to publish to");
    (publish, subscribe)
}

const BUCKETS: [&str; 2] = ["notes", "files"];

/// What `Notes` is.
const SERVICE: [&str; 3] = [
    "A service",
    "A service that keeps answers in a KV bucket",
    "A service that keeps answers in an object bucket",
];

/// A user that plays these roles and may do nothing else.
fn user(name: &str, roles: &[&str]) -> String {
    user_without(name, roles, None)
}

/// The same, without the right to publish what begins so.
fn user_without(name: &str, roles: &[&str], denied: Option<&str>) -> String {
    let (mut publish, mut subscribe) = (Vec::new(), Vec::new());
    for role in roles {
        let (more, others) = permissions(role);
        publish.extend(more);
        subscribe.extend(others);
    }
    if let Some(denied) = denied {
        let all = publish.len();
        publish.retain(|subject| !subject.starts_with(denied));
        assert!(publish.len() < all, "`{denied}` is among the rights");
    }
    // An empty list would deny nothing.
    let only = |subjects: &[String]| match subjects {
        [] => "{ deny: \">\" }".to_owned(),
        some => format!("{some:?}"),
    };
    format!(
        "{{ user: {name}, password: p, permissions: {{ publish: {}, subscribe: {} }} }}",
        only(&publish),
        only(&subscribe)
    )
}

async fn server(users: &[String]) -> TestServer {
    let users = users.join("\n");
    let config = format!(
        "authorization {{ users: [ {{ user: operator, password: p }}\n {users} ] }}\nno_auth_user: operator"
    );
    let server = TestServer::builder().config(config).start().await;
    let server = server.expect("a server");
    let js = as_user(&server, "operator").await;
    js.create_key_value(jetstream::kv::Config {
        bucket: "notes".into(),
        history: 5,
        ..Default::default()
    })
    .await
    .expect("a bucket");
    js.create_object_store(jetstream::object_store::Config {
        bucket: "files".into(),
        ..Default::default()
    })
    .await
    .expect("a bucket");
    server
}

/// JetStream as a user sees it who waits for no more than a moment for what he may not ask.
async fn as_user(server: &TestServer, name: &str) -> jetstream::Context {
    let options = async_nats::ConnectOptions::with_user_and_password(name.into(), "p".into());
    let client = options.connect(server.url()).await.expect("a connection");
    jetstream::new(client)
}

async fn start(js: &jetstream::Context) -> Running {
    let server = Server::new(js.client()).with_jetstream(js.clone());
    server
        .serve(NotesServer::new(Desk))
        .start()
        .await
        .expect("a service")
}

fn note(id: &str, text: &str) -> Note {
    Note {
        id: id.into(),
        text: text.into(),
    }
}

#[tokio::test]
async fn a_reader_of_a_kv_bucket_needs_no_more_and_cannot_write() {
    let server = server(&[user("reader", &["A reader of a KV bucket"])]).await;
    let js = as_user(&server, "operator").await;
    let writer = KvStore::<Note>::bind(js, "notes").expect("a name");
    let one = writer.key("note.a").expect("a key");
    let first = one.put(&note("a", "1")).await.expect("a write");
    one.put(&note("a", "2")).await.expect("a write");

    let mut js = as_user(&server, "reader").await;
    let store = KvStore::<Note>::bind(js.clone(), "notes").expect("a name");
    let key = store.key("note.a").expect("a key");
    let get = soon("get", key.get()).await.expect("a read");
    assert_eq!(get.map(|entry| entry.into_value()), Some(note("a", "2")));
    let at = soon("get_at", key.get_at(first)).await.expect("a read");
    assert_eq!(at.map(|entry| entry.into_value()), Some(note("a", "1")));
    assert_eq!(soon("history", key.history()).await.expect("it").len(), 2);
    let keys = soon("keys", store.keys()).await.expect("keys");
    let keys: Vec<String> = soon("all", keys.try_collect::<Vec<_>>())
        .await
        .expect("keys");
    assert_eq!(keys, ["note.a"]);
    assert_eq!(soon("status", store.status()).await.expect("it").values, 2);
    let many = store.get_many(["note.a", "note.b"]);
    assert_eq!(soon("many", many.into_future()).await.expect("it").len(), 1);
    let all = store.all();
    assert_eq!(soon("all", all.get_all()).await.expect("it").len(), 1);
    let newer = soon("newer", key.get_if_newer(first)).await.expect("it");
    assert!(matches!(newer, Newer::Entry(_)));
    for level in [ReadLevel::Leader, ReadLevel::AtLeast(first + 1)] {
        let read = soon("a level", key.read(level)).await.expect("it");
        assert_eq!(read.map(|entry| entry.revision), Some(first + 1));
    }

    let mut watch = soon("watch", store.watch().into_future())
        .await
        .expect("it");
    let mut changes = 0;
    while let Some(event) = soon("an event", watch.next()).await {
        match event.expect("a change") {
            WatchEvent::InitialDone => {
                one.put(&note("a", "3")).await.expect("a write");
            }
            WatchEvent::Change(_) => changes += 1,
            _ => {}
        }
        if changes == 2 {
            break;
        }
    }

    js.set_timeout(DENIED);
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let key = store.key("note.a").expect("a key");
    let denied = soon("a denied write", key.put(&note("a", "4"))).await;
    assert!(matches!(denied, Err(StoreError::Timeout)), "{denied:?}");
    let now = one.get().await.expect("a read").expect("an entry");
    assert_eq!(now.into_value().text, "3");
}

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

#[tokio::test]
async fn a_reader_that_confirms_may_write_the_mark_and_nothing_else() {
    let roles = ["A reader of a KV bucket", "A reader that confirms"];
    let server = server(&[user("reader", &roles)]).await;
    let js = as_user(&server, "operator").await;
    let writer = KvStore::<Note>::bind(js, "notes").expect("a name");
    let one = writer.key("note.a").expect("a key");
    one.put(&note("a", "1")).await.expect("a write");

    let mut js = as_user(&server, "reader").await;
    js.set_timeout(DENIED);
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let key = store.key("note.a").expect("a key");
    let read = soon("a read", key.read(ReadLevel::Confirmed)).await;
    let read = read.expect("it is allowed").map(|entry| entry.into_value());
    assert_eq!(read, Some(note("a", "1")));
    let denied = soon("a denied write", key.put(&note("a", "2"))).await;
    assert!(matches!(denied, Err(StoreError::Timeout)), "{denied:?}");
}

#[tokio::test]
async fn a_tidier_of_a_kv_bucket_removes_old_marks() {
    let roles = ["A reader of a KV bucket", "A tidier of a KV bucket"];
    let server = server(&[user("tidier", &roles)]).await;
    let js = as_user(&server, "operator").await;
    let writer = KvStore::<Note>::bind(js, "notes").expect("a name");
    let one = writer.key("note.a").expect("a key");
    one.delete().await.expect("a write");
    let js = as_user(&server, "tidier").await;
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let removed = soon("a tidying", store.all().purge_deletes(Duration::ZERO)).await;
    assert_eq!(removed.expect("it is allowed"), 1);
}

#[tokio::test]
async fn a_writer_of_a_kv_bucket_can_do_what_there_is_to_do_with_a_key() {
    let roles = ["A reader of a KV bucket", "A writer of a KV bucket"];
    let server = server(&[user("writer", &roles)]).await;
    let js = as_user(&server, "writer").await;
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let key = store.key("note.a").expect("a key");
    let all = async {
        let first = key.create(&note("a", "1")).await?;
        let second = key.update(&note("a", "2"), first).await?;
        let conflict = key.update(&note("a", "3"), first).await;
        let told = matches!(conflict, Err(StoreError::Conflict { current, .. }) if current == Some(second));
        assert!(told, "{conflict:?}");
        key.roll_back(first).await?;
        key.delete().await?;
        key.create(&note("a", "4")).await?;
        key.purge().await?;
        assert!(key.get().await?.is_none());
        Ok::<(), StoreError>(())
    };
    soon("all operations", all).await.expect("all are allowed");
}

#[tokio::test]
async fn a_reader_of_an_object_bucket_needs_no_more_and_cannot_write() {
    let server = server(&[user("reader", &["A reader of an object bucket"])]).await;
    let js = as_user(&server, "operator").await;
    let writer = ObjectStore::<()>::bind(js, "files").expect("a name");
    // So much that the server waits for the reader: it comes only with the right to answer flow control.
    let large = Bytes::from(vec![7; 10_000_000]);
    let object = writer.object("a file").expect("a name");
    object.put_reader(&large[..]).await.expect("an upload");

    let mut js = as_user(&server, "reader").await;
    let store = ObjectStore::<()>::bind(js.clone(), "files").expect("a name");
    let object = store.object("a file").expect("a name");
    let info = soon("info", object.info()).await.expect("it");
    assert_eq!(info.map(|info| info.size), Some(10_000_000));
    let bytes = soon("bytes", object.bytes()).await.expect("a read");
    assert_eq!(bytes, Some(large));
    let list = soon("list", store.list()).await.expect("it");
    assert_eq!(soon("all", list.count()).await, 1);
    let mut watch = soon("watch", store.watch()).await.expect("it");
    let event = soon("an event", watch.next()).await;
    assert!(matches!(event, Some(Ok(ObjectEvent::Changed(_)))));
    assert!(!soon("status", store.status()).await.expect("it").sealed);

    js.set_timeout(DENIED);
    let store = ObjectStore::<()>::bind(js, "files").expect("a name");
    let object = store.object("a file").expect("a name");
    let denied = soon("a denied write", object.put_reader(&b"x"[..])).await;
    assert!(denied.is_err(), "{denied:?}");
}

/// The right to answer flow control is one to be fast: what is read without it comes in windows of some 2 MB.
#[tokio::test]
async fn without_flow_control_a_large_object_comes_all_the_same() {
    let roles = ["A reader of an object bucket"];
    let server = server(&[user_without("reader", &roles, Some("$JS.FC."))]).await;
    let js = as_user(&server, "operator").await;
    let large: Bytes = (0..10_000_000_u32).map(|i| (i >> 13) as u8).collect();
    let writer = ObjectStore::<()>::bind(js, "files").expect("a name");
    let object = writer.object("a file").expect("a name");
    object.put_reader(&large[..]).await.expect("an upload");

    let js = as_user(&server, "reader").await;
    let store = ObjectStore::<()>::bind(js, "files").expect("a name");
    let object = store.object("a file").expect("a name");
    let bytes = soon("bytes", object.bytes()).await.expect("a read");
    assert!(bytes == Some(large));
}

#[tokio::test]
async fn without_flow_control_many_entries_come_once_each_and_the_watch_goes_on() {
    let roles = ["A reader of a KV bucket"];
    let server = server(&[user_without("reader", &roles, Some("$JS.FC."))]).await;
    let js = as_user(&server, "operator").await;
    let writer = KvStore::<Note>::bind(js, "notes").expect("a name");
    // Three windows, in a bucket that keeps older revisions, which a listing must not bring.
    let key = |i: u32| format!("note.{i:03}");
    let text = "x".repeat(50_000);
    for i in 0..120 {
        let one = writer.key(key(i)).expect("a key");
        one.put(&note("old", &text)).await.expect("a write");
        one.put(&note("new", &text)).await.expect("a write");
    }
    // And some that are written again at the end.
    for i in 0..10 {
        let one = writer.key(key(i * 12)).expect("a key");
        one.put(&note("new", &text)).await.expect("a write");
    }
    let all: Vec<String> = (0..120).map(key).collect();
    let in_order = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };

    let js = as_user(&server, "reader").await;
    let store = KvStore::<Note>::bind(js, "notes").expect("a name");
    let entries = soon("entries", store.entries()).await.expect("entries");
    let entries: Vec<_> = soon("all entries", entries.try_collect())
        .await
        .expect("it");
    assert!(entries.iter().all(|entry| entry.value().id == "new"));
    let keys = entries.iter().map(|entry| entry.key().to_owned()).collect();
    assert_eq!(in_order(keys), all);
    let keys = soon("keys", store.keys()).await.expect("keys");
    let keys: Vec<String> = soon("all keys", keys.try_collect()).await.expect("keys");
    assert_eq!(in_order(keys), all);

    let mut watch = soon("a watch", store.watch().into_future())
        .await
        .expect("it");
    let (mut keys, mut revision) = (Vec::new(), 0);
    loop {
        match soon("an event", watch.next()).await.expect("no end") {
            Ok(WatchEvent::Change(change)) => {
                assert!(change.revision > revision, "nothing comes twice");
                revision = change.revision;
                assert_eq!(change.value().map(|note| &*note.id), Some("new"));
                keys.push(change.key);
            }
            Ok(WatchEvent::InitialDone) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(in_order(keys), all);
    for i in 0..120 {
        let one = writer.key(key(i)).expect("a key");
        one.put(&note("newer", &text)).await.expect("a write");
        match soon("a change", watch.next()).await.expect("no end") {
            Ok(WatchEvent::Change(change)) => {
                assert_eq!(change.key, key(i));
                assert_eq!(change.value().map(|note| &*note.id), Some("newer"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_keeper_of_an_object_bucket_can_sweep_and_seal() {
    let roles = [
        "A reader of an object bucket",
        "A writer of an object bucket",
        "A keeper of an object bucket",
    ];
    let server = server(&[user("keeper", &roles)]).await;
    let js = as_user(&server, "keeper").await;
    let store = ObjectStore::<()>::bind(js, "files").expect("a name");
    let upload = store.object("a").expect("a name").upload().resumable();
    let broken = nats_service_tests::objects::failing(&[7; 200_000], 200_000);
    assert!(upload.read_from(broken).await.is_err());
    let swept = soon("a sweep", store.remove_orphans(Duration::ZERO)).await;
    assert_eq!(swept.expect("it is allowed").uploads, 1);
    let swept = soon("a sweep", store.remove_unshared(Duration::ZERO)).await;
    assert_eq!(swept.expect("it is allowed"), (0, 0));
    soon("the seal", store.seal()).await.expect("it is allowed");
}

#[tokio::test]
async fn a_writer_of_an_object_bucket_can_put_get_replace_and_delete() {
    let roles = [
        "A reader of an object bucket",
        "A writer of an object bucket",
    ];
    let server = server(&[user("writer", &roles)]).await;
    let js = as_user(&server, "writer").await;
    let store = ObjectStore::<Note>::bind(js, "files").expect("a name");
    let object = store.object("a file").expect("a name");
    let all = async {
        object.put(&note("a", "1")).await?;
        object.put(&note("a", "2")).await?;
        let got = object.get().await?;
        assert_eq!(got.map(|object| object.value), Some(note("a", "2")));
        let mut text = Vec::new();
        if let Some(mut reader) = object.reader().await? {
            reader.read_to_end(&mut text).await.expect("its bytes");
        }
        assert!(!text.is_empty());
        object
            .range(1..3)
            .await?
            .expect("an object")
            .next_chunk()
            .await?;
        object
            .describe(|meta| meta.description = Some("said".into()))
            .await?;
        object.rename("another").await?;
        let another = store.object("another")?;
        object.link_to(&another).await?;
        assert!(object.delete().await?);
        assert!(another.delete().await?);
        assert!(another.get().await?.is_none());
        // An upload that goes on, from a source that has changed.
        let bytes = vec![7; 300_000];
        let upload = another.upload().resumable();
        let token = upload.token();
        let broken = nats_service_tests::objects::failing(&bytes, 200_000);
        assert!(upload.read_from(broken).await.is_err());
        store.resume(&token)?.read_from(&bytes[1..]).await?;
        store.resume(&token)?.read_from(&[8; 10][..]).await?;
        let upload = another.upload().resumable();
        let token = upload.token();
        let broken = nats_service_tests::objects::failing(&bytes, 200_000);
        assert!(upload.read_from(broken).await.is_err());
        store.resume(&token)?.read_from(&[8; 10][..]).await?;
        assert!(another.delete().await?);
        Ok::<(), StoreError>(())
    };
    soon("all operations", all).await.expect("all are allowed");
    // The purges of what was replaced were allowed too: nothing but the marks of the deletions are left.
    let js = as_user(&server, "operator").await;
    let stream = js.get_stream("OBJ_files").await.expect("the stream");
    assert_eq!(stream.cached_info().state.messages, 2);
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
