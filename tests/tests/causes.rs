//! What lies behind a typed error is the operator's: it is logged at the service, and never sent.

use nats_service::{CallError, Cause, Code, Error, Server, ServiceError, nats_service};
use nats_service_tests::{Nats, connect, soon};
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

/// What the service knows.
#[derive(Debug, PartialEq, ServiceError)]
enum ProfileError {
    #[service_error(code = Unavailable, message = "profile {id} cannot be read now")]
    Database { id: u64, cause: Cause },
    #[service_error(code = FailedPrecondition, message = "profile {0} is locked since {1}")]
    Locked(u64, String),
}

mod older {
    use super::*;

    /// What a client knows that was built before `Locked` was there.
    #[derive(Debug, PartialEq, ServiceError)]
    pub(super) enum ProfileError {
        #[service_error(code = Unavailable, message = "profile {id} cannot be read now")]
        Database { id: u64 },
    }

    #[nats_service(name = "profiles", subject = "profiles", version = "1.0.0")]
    #[allow(dead_code)]
    trait OldProfiles {
        async fn load(&self, id: u64) -> Result<String, ProfileError>;
    }

    pub(super) async fn load(nats: async_nats::Client, id: u64) -> CallError<ProfileError> {
        let client = OldProfilesClient::new(nats);
        soon("an error", client.load(id)).await.unwrap_err()
    }
}

#[nats_service(version = "1.0.0")]
trait Profiles {
    async fn load(&self, id: u64) -> Result<String, ProfileError>;
}

struct Desk;

#[derive(Debug, thiserror::Error)]
#[error("the query of profile {0} failed")]
struct QueryFailed(u64, #[source] std::io::Error);

impl Profiles for Desk {
    async fn load(&self, id: u64) -> Result<String, ProfileError> {
        if id == 0 {
            return Err(ProfileError::Locked(id, "noon".into()));
        }
        let cause = QueryFailed(id, std::io::Error::other("password `hunter2` is wrong"));
        let cause = Cause::new(cause);
        Err(ProfileError::Database { id, cause })
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// That of this process.
    fn of_all() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Log::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            // For all threads: a log that only one of them has is not asked for by what another one has met first.
            tracing::subscriber::set_global_default(subscriber).expect("the first one");
            log
        })
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A service whose handlers work with a store, and pass its failures on.
#[nats_service(version = "1.0.0")]
trait Seats {
    #[kv_store(bucket = "seats", key = "seat.<number>", write = "never")]
    async fn take(&self, number: String, name: String) -> Result<String, Error>;
}

struct Hall(SeatsStores);

impl Seats for Hall {
    async fn take(&self, number: String, name: String) -> Result<String, Error> {
        self.0.take().at(&number)?.create(&name).await?;
        Ok(name)
    }
}

#[tokio::test]
async fn a_handler_passes_on_what_a_store_says_by_its_code_and_without_its_words() {
    let log = Log::of_all();
    let nats = Nats::start().await;
    let (served, js) = connect(&nats.server).await;
    let stores = SeatsStores::new(js.clone());
    let server = Server::new(served)
        .with_jetstream(js)
        .serve(SeatsServer::new(Hall(stores)));
    let _running = soon("a start", server.start()).await.expect("a server");

    let seats = SeatsClient::new(nats.client.clone());
    assert_eq!(soon("a seat", seats.take("7", "Ada")).await.unwrap(), "Ada");
    let late = soon("an error", seats.take("7", "Bob")).await.unwrap_err();
    assert_eq!(
        (late.code(), &*late.to_string()),
        (Code::AlreadyExists, "it exists already")
    );
    assert!(
        log.text()
            .contains("`seat.7` was changed by another writer"),
        "{}",
        log.text()
    );

    // What is wrong with the request, its sender is told.
    let wrong = soon("an error", seats.take("7.a", "Bob"))
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.to_string().contains("number"), "{wrong}");
}

#[tokio::test]
async fn what_lies_behind_an_error_is_logged_and_not_sent() {
    let log = Log::of_all();
    let nats = Nats::start().await;
    let (served, _) = connect(&nats.server).await;
    let server = Server::new(served).serve(ProfilesServer::new(Desk));
    let _running = soon("a start", server.start()).await.expect("a server");

    let client = ProfilesClient::new(nats.client.clone());
    let error = soon("an error", client.load(7)).await.unwrap_err();
    let CallError::Service(ProfileError::Database { id, cause }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!((*id, cause.to_string().as_str()), (7, "not known here"));
    let reply = nats.client.request("profiles.load", "7".into());
    let reply = soon("a reply", reply).await.unwrap();
    let sent = format!("{:?} {:?}", reply.headers, reply.payload);
    assert!(sent.contains("profile 7 cannot be read now"), "{sent}");
    assert!(
        !sent.contains("query") && !sent.contains("hunter2"),
        "{sent}"
    );

    let logged = log.text();
    assert!(
        logged.contains("the query of profile 7 failed: password `hunter2` is wrong"),
        "{logged}"
    );
}

#[tokio::test]
async fn a_variant_of_a_newer_service_arrives_with_its_code_text_name_and_fields() {
    let nats = Nats::start().await;
    let (served, _) = connect(&nats.server).await;
    let server = Server::new(served).serve(ProfilesServer::new(Desk));
    let _running = soon("a start", server.start()).await.expect("a server");
    // One that it knows, though it has a field more.
    let known = older::load(nats.client.clone(), 7).await;
    assert!(
        matches!(
            known,
            CallError::Service(older::ProfileError::Database { id: 7 })
        ),
        "{known:?}"
    );
    let CallError::Remote(error) = older::load(nats.client.clone(), 0).await else {
        panic!("the old client knows no such variant");
    };
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(error.message(), "profile 0 is locked since noon");
    assert_eq!(error.variant(), Some("Locked"));
    assert_eq!(error.details(), &serde_json::json!([0, "noon"]));
}
