//! Several stores of one method, and `when`: what decides whether an answer is kept.

use nats_service::{ByteStream, Code, Error, Running, Server, StartError, message, nats_service};
use nats_service_tests::{Nats, PATIENCE, desk, soon, until};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[message]
#[derive(Debug, Clone)]
struct Note<'a> {
    id: &'a str,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[message]
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    id: String,
    text: String,
    made: String,
}

/// How often a condition was asked, by the test that asks.
static ASKED: AtomicUsize = AtomicUsize::new(0);

fn asked(verdict: bool) -> bool {
    ASKED.fetch_add(1, SeqCst);
    verdict
}

#[nats_service(version = "1.0.0", timeout = "20s")]
trait Notes {
    /// In three places, in three ways.
    #[kv_store(bucket = "notes", key = "note.<id>", write = "before_reply")]
    #[kv_store(bucket = "copies", key = "copy.<id>", name = "copies")]
    #[object_store(bucket = "files", key = "file.<id>", name = "files", when = |note, kept| note.text.len() > 3 && kept.text != "small")]
    #[kv_evict(bucket = "drafts", key = "draft.<id>")]
    async fn write(&self, note: Note<'_>) -> Result<Kept, Error>;

    /// A draft, which only a condition on the request keeps.
    #[kv_store(bucket = "drafts", key = "draft.<id>", write = "before_reply", when = |_, keep, _| *keep)]
    async fn draft(&self, id: String, keep: bool) -> Kept;

    /// The key is made of the answer, and cannot be where the condition says no.
    #[kv_store(bucket = "made", key = "made.<response.made>", write = "before_reply", when = |kept| !kept.made.is_empty())]
    async fn make(&self, id: String) -> Kept;

    /// Removes, where the answer says so.
    #[kv_evict(bucket = "drafts", key = "draft.<id>", write = "before_reply", when = |gone| *gone)]
    async fn discard(&self, id: String, really: bool) -> bool;

    /// Counts how often it is asked; the condition panics for one text.
    #[kv_store(bucket = "counted", key = "<id>", write = "before_reply", when = |note, kept| {
        assert!(kept.text != "panic", "the condition fails");
        asked(note.id == kept.id)
    })]
    async fn count(&self, note: Note<'_>) -> Result<Kept, Error>;

    /// Larger than a message, and kept only where the condition says so.
    #[object_store(bucket = "large", key = "<id>", when = |_, keep, _| *keep)]
    async fn large(&self, id: String, keep: bool) -> String;
}

struct Desk;

fn kept(id: &str, text: &str) -> Kept {
    Kept {
        id: id.to_owned(),
        text: text.to_owned(),
        made: String::new(),
    }
}

impl Notes for Desk {
    async fn write(&self, note: Note<'_>) -> Result<Kept, Error> {
        Ok(kept(note.id, &note.text))
    }
    async fn draft(&self, id: String, _keep: bool) -> Kept {
        kept(&id, "draft")
    }
    async fn make(&self, id: String) -> Kept {
        Kept {
            made: id.clone(),
            ..kept(&id, "")
        }
    }
    async fn discard(&self, _id: String, really: bool) -> bool {
        really
    }
    async fn count(&self, note: Note<'_>) -> Result<Kept, Error> {
        match &*note.text {
            "fail" => Err(Error::not_found("no such note")),
            text => Ok(kept(note.id, text)),
        }
    }
    async fn large(&self, _id: String, _keep: bool) -> String {
        "x".repeat(3_000_000)
    }
}

async fn start(nats: &Nats) -> (Running, NotesClient) {
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let running = server.serve(NotesServer::new(Desk)).start().await;
    let client = NotesClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    (running.expect("a server"), client)
}

fn note<'a>(id: &'a str, text: &'a str) -> Note<'a> {
    let text = Cow::Borrowed(text);
    Note { id, text }
}

#[tokio::test]
async fn each_store_of_a_method_has_its_accessor_and_its_write_mode() {
    let nats = Nats::start().await;
    let (_running, client) = start(&nats).await;
    let stores = client.stores().unwrap();
    client.draft("a".to_owned(), true).await.unwrap();
    assert!(
        nats.js
            .get_key_value("drafts")
            .await
            .unwrap()
            .get("draft.a")
            .await
            .unwrap()
            .is_some()
    );

    let reply = client
        .write(note("a", "long enough"))
        .reply()
        .await
        .unwrap();
    let own = stores
        .write()
        .at("a")
        .unwrap()
        .get()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (reply.revision, own.value()),
        (Some(own.revision), &reply.value)
    );
    // The other two are written after the reply, each in its own place.
    let copy = stores.copies().at("a").unwrap();
    until("the copy is written", async || {
        copy.get().await.unwrap().is_some()
    })
    .await;
    let file = stores.files().at("a").unwrap();
    until("the file is written", async || {
        file.get().await.unwrap().is_some()
    })
    .await;
    assert_eq!(file.get().await.unwrap().unwrap().value, reply.value);
    let draft = stores.draft().at("a").unwrap();
    until("the draft is gone", async || {
        draft.get().await.unwrap().is_none()
    })
    .await;
}

#[tokio::test]
async fn a_condition_decides_by_the_request_and_by_the_answer() {
    let nats = Nats::start().await;
    let (running, client) = start(&nats).await;
    let stores = client.stores().unwrap();
    for (id, text) in [("a", "abc"), ("b", "small"), ("c", "long enough")] {
        client.write(note(id, text)).await.unwrap();
    }
    for keep in [false, true] {
        client.draft(format!("keep-{keep}"), keep).await.unwrap();
    }
    assert!(
        stores
            .draft()
            .at("keep-false")
            .unwrap()
            .get()
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        stores
            .draft()
            .at("keep-true")
            .unwrap()
            .get()
            .await
            .unwrap()
            .is_some()
    );

    let unkept = client.draft("b".to_owned(), true).await.unwrap();
    assert_eq!(unkept.text, "draft");
    for really in [false, true] {
        assert_eq!(
            client.discard("b".to_owned(), really).await.unwrap(),
            really
        );
        let there = stores
            .draft()
            .at("b")
            .unwrap()
            .get()
            .await
            .unwrap()
            .is_some();
        assert_eq!(there, !really);
    }
    running.shutdown(PATIENCE).await.unwrap();
    let files = stores.files();
    let mut found = Vec::new();
    for id in ["a", "b", "c"] {
        found.push(files.at(id).unwrap().get().await.unwrap().is_some());
        let own = stores.write().at(id).unwrap().get().await.unwrap();
        assert!(
            own.is_some(),
            "the others are kept whatever one condition says"
        );
    }
    assert_eq!(found, [false, false, true]);
}

#[tokio::test]
async fn a_store_that_is_left_out_needs_no_key() {
    let nats = Nats::start().await;
    let (_running, client) = start(&nats).await;
    assert_eq!(client.make(String::new()).await.unwrap().made, "");
    let refused = client.make("not.one.token".to_owned()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(
        client.make("m1".to_owned()).reply().await.unwrap().revision,
        Some(1)
    );
}

#[tokio::test]
async fn a_condition_is_asked_once_after_success_and_its_panic_is_contained() {
    let nats = Nats::start().await;
    let (_running, client) = start(&nats).await;
    let failed = client.count(note("a", "fail")).await.unwrap_err();
    assert_eq!((failed.code(), ASKED.load(SeqCst)), (Code::NotFound, 0));
    let panicked = client.count(note("a", "panic")).await.unwrap_err();
    assert_eq!((panicked.code(), ASKED.load(SeqCst)), (Code::Internal, 0));
    assert!(
        !panicked.to_string().contains("the condition fails"),
        "{panicked}"
    );
    let store = client.stores().unwrap().count();
    assert!(store.at("a").unwrap().get().await.unwrap().is_none());

    client.count(note("a", "a \"quoted\" text")).await.unwrap();
    assert_eq!(ASKED.load(SeqCst), 1);
    assert!(store.at("a").unwrap().get().await.unwrap().is_some());
    let stats = desk::stats(&nats.client, "notes", "count").await;
    assert_eq!(
        (&stats["num_requests"], &stats["num_errors"]),
        (&3.into(), &2.into())
    );
}

#[tokio::test]
async fn an_answer_that_fits_no_message_is_refused_where_the_condition_keeps_it_from_its_store() {
    let nats = Nats::start().await;
    let (_running, client) = start(&nats).await;
    let whole = soon("a large answer", client.large("a".to_owned(), true)).await;
    assert_eq!(whole.unwrap().len(), 3_000_000);
    let refused = client.large("b".to_owned(), false).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        client
            .stores()
            .unwrap()
            .large()
            .at("b")
            .unwrap()
            .get()
            .await
            .unwrap()
            .is_none()
    );
}

#[nats_service(version = "1.0.0")]
trait Streams {
    #[object_store(bucket = "streams", key = "<id>", when = |_| true)]
    async fn sometimes(&self, id: String) -> Result<ByteStream, Error>;
}

#[nats_service(version = "1.0.0")]
trait Twice {
    #[object_store(bucket = "streams", key = "<id>")]
    #[object_store(bucket = "more", key = "<id>", name = "more")]
    async fn twice(&self, id: String) -> Result<ByteStream, Error>;
}

impl Streams for Desk {
    async fn sometimes(&self, _id: String) -> Result<ByteStream, Error> {
        Ok(ByteStream::new(tokio::io::empty()))
    }
}

impl Twice for Desk {
    async fn twice(&self, _id: String) -> Result<ByteStream, Error> {
        Ok(ByteStream::new(tokio::io::empty()))
    }
}

#[tokio::test]
async fn a_stream_that_would_have_to_be_read_twice_keeps_the_server_from_starting() {
    let nats = Nats::start().await;
    let desk = Arc::new(Desk);
    let server = || Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let one = server()
        .serve(StreamsServer::from_arc(desk.clone()))
        .start()
        .await;
    assert!(
        matches!(one, Err(StartError::StreamKeptOtherwise { .. })),
        "{one:?}"
    );
    let two = server().serve(TwiceServer::from_arc(desk)).start().await;
    let error = two.expect_err("two stores").to_string();
    assert!(
        error.contains("twice.twice") && error.contains("remove"),
        "{error}"
    );
}
