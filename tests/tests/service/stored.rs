//! Where an answer is kept, as its caller is told in the reply and the service by its hook.

use nats_service::{ByteStream, Running, Server, StoredWrite, nats_service};
use nats_service_tests::desk::{KeeperClient, ask, keeper_with, task};
use nats_service_tests::{Nats, PATIENCE, until};
use std::sync::{Arc, Mutex};

#[nats_service]
trait Archive {
    #[object_store(bucket = "pages", key = "page.<id>", write = "before_reply")]
    async fn page(&self, id: String) -> String;

    /// The object stands first; the entry has the revision.
    #[object_store(bucket = "pages", key = "both.<id>", write = "before_reply")]
    #[kv_store(
        bucket = "index",
        key = "entry.<id>",
        write = "before_reply",
        name = "entry"
    )]
    #[kv_store(
        bucket = "index",
        key = "again.<id>",
        write = "before_reply",
        name = "again"
    )]
    async fn both(&self, id: String) -> String;

    #[object_store(bucket = "pages", key = "large.<bytes>")]
    async fn large(&self, bytes: u32) -> String;

    #[kv_evict(bucket = "index", key = "entry.<id>", write = "before_reply")]
    async fn forget(&self, id: String) -> String;

    #[object_store(bucket = "pages", key = "roll.<id>")]
    async fn roll(&self, id: String) -> ByteStream;

    #[kv_cache(
        bucket = "found",
        key = "found.<id>",
        ttl = "1h",
        write = "before_reply"
    )]
    async fn find(&self, id: String) -> String;
}

struct Clerk;

impl Archive for Clerk {
    async fn page(&self, id: String) -> String {
        id
    }

    async fn both(&self, id: String) -> String {
        id
    }

    async fn large(&self, bytes: u32) -> String {
        "x".repeat(bytes as usize)
    }

    async fn forget(&self, id: String) -> String {
        id
    }

    async fn roll(&self, id: String) -> ByteStream {
        ByteStream::new(std::io::Cursor::new(id.into_bytes()))
    }

    async fn find(&self, id: String) -> String {
        id
    }
}

type Told = Arc<Mutex<Vec<StoredWrite>>>;

fn telling(server: Server) -> (Server, Told) {
    let told = Told::default();
    let hook = told.clone();
    let server = server.on_stored_write(move |write| hook.lock().unwrap().push(write.clone()));
    (server, told)
}

/// What was told: bucket, key, revision, and whether it was deleted.
fn lines(told: &Told) -> Vec<(String, String, Option<u64>, bool)> {
    let told = told.lock().unwrap();
    let lines = told.iter().map(|write| {
        let StoredWrite { bucket, key, .. } = write;
        (
            bucket.to_string(),
            key.clone(),
            write.revision,
            write.deleted,
        )
    });
    lines.collect()
}

fn line(
    bucket: &str,
    key: &str,
    revision: Option<u64>,
    deleted: bool,
) -> (String, String, Option<u64>, bool) {
    (bucket.to_owned(), key.to_owned(), revision, deleted)
}

async fn archive(nats: &Nats) -> (Running, Told, ArchiveClient) {
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let (server, told) = telling(server);
    let running = server.serve(ArchiveServer::new(Clerk)).start().await;
    let client = ArchiveClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    (running.expect("a service"), told, client)
}

#[tokio::test]
async fn a_reply_says_the_key_and_the_revision_of_an_answer_that_was_stored_before_it() {
    let nats = Nats::start().await;
    let _keeper = keeper_with(&nats, |server| server).await;
    let client = KeeperClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let surely = client.keep_surely(task("a")).reply().await.unwrap();
    assert_eq!(
        (surely.revision, surely.key.as_deref()),
        (Some(1), Some("task.a"))
    );
    let later = client.keep(task("a")).reply().await.unwrap();
    assert_eq!((later.revision, later.key), (None, None));

    // One that knows nothing of this header has its answer and its revision as ever.
    let body = serde_json::to_vec(&task("b")).unwrap();
    let reply = ask(&nats.client, "keeper.keep_surely", body).await;
    let headers = reply.headers.expect("headers");
    let said = |name: &str| headers.get(name).map(|value| value.as_str());
    assert_eq!(said("Nats-Service-Key"), Some("task.b"));
    assert_eq!(said("Nats-Service-Revision"), Some("2"));
    assert!(serde_json::from_slice::<serde_json::Value>(&reply.payload).is_ok());
}

#[tokio::test]
async fn of_several_stores_it_is_the_key_that_has_the_revision() {
    let nats = Nats::start().await;
    let (_running, _, client) = archive(&nats).await;
    let id = || "a".to_owned();
    let both = client.both(id()).reply().await.unwrap();
    assert_eq!(
        (both.revision, both.key.as_deref()),
        (Some(1), Some("entry.a"))
    );
    let page = client.page(id()).reply().await.unwrap();
    assert_eq!((page.revision, page.key.as_deref()), (None, Some("page.a")));
    // Too large for a message: it travels as its object.
    let large = client.large(2_000_000).reply().await.unwrap();
    assert_eq!(large.value.len(), 2_000_000);
    assert_eq!(large.key.as_deref(), Some("large.2000000"));
    let small = client.large(2).reply().await.unwrap();
    assert_eq!(small.key, None, "it is stored later");
    let roll = client.roll(id()).reply().await.unwrap();
    assert_eq!((roll.revision, roll.key.as_deref()), (None, Some("roll.a")));
    let gone = client.forget(id()).reply().await.unwrap();
    assert_eq!(
        (gone.revision, gone.key),
        (None, None),
        "it is not the answer's key"
    );
    // Its caller asked by the key.
    for _ in 0..2 {
        let found = client.find(id()).reply().await.unwrap();
        assert_eq!((found.revision, found.key), (Some(1), None));
    }
}

#[tokio::test]
async fn the_service_is_told_of_each_write_that_is_stored_and_of_no_other() {
    let nats = Nats::start().await;
    let told = Told::default();
    let hook = told.clone();
    let keeper = keeper_with(&nats, |server| {
        server.on_stored_write(move |write| hook.lock().unwrap().push(write.clone()))
    })
    .await;
    let client = KeeperClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    client.keep(task("a")).await.unwrap();
    until("it is stored", async || lines(&told).len() == 1).await;
    client.keep_surely(task("a")).await.unwrap();
    // Before the reply is before the caller knows.
    assert_eq!(lines(&told).len(), 2);
    client.keep_not(task("a")).await.unwrap();
    client.forget(task("a")).await.unwrap();
    until("it is gone", async || lines(&told).len() == 3).await;
    client.render(task("a")).await.unwrap();
    until("it is stored", async || lines(&told).len() == 4).await;
    let expected = [
        line("kept", "task.a", Some(1), false),
        line("sure", "task.a", Some(1), false),
        line("kept", "task.a", Some(2), true),
        line("large", "task.a", None, false),
    ];
    assert_eq!(lines(&told), expected);
    let report = keeper.running.shutdown(PATIENCE).await.unwrap();
    assert!(report.unwritten.is_empty());
    assert_eq!(lines(&told), expected);
}

#[tokio::test]
async fn streams_that_are_stored_are_told_and_what_caches_write_is_not() {
    let nats = Nats::start().await;
    let (running, told, client) = archive(&nats).await;
    client.find("a".to_owned()).await.unwrap();
    client.roll("a".to_owned()).await.unwrap();
    running.shutdown(PATIENCE).await.unwrap();
    assert_eq!(lines(&told), [line("pages", "roll.a", None, false)]);
}

#[tokio::test]
async fn a_hook_that_panics_takes_nothing_along() {
    let nats = Nats::start().await;
    let keeper = keeper_with(&nats, |server| {
        server.on_stored_write(|write| panic!("{} is not wanted", write.key))
    })
    .await;
    let client = KeeperClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    for _ in 0..3 {
        client.keep(task("a")).await.unwrap();
        client.keep_surely(task("a")).await.unwrap();
    }
    keeper.running.shutdown(PATIENCE).await.unwrap();
    let kept = client.stores().unwrap().keep().at("a").unwrap();
    assert_eq!(kept.history().await.unwrap().len(), 3);
}
