//! Two deployments of one service side by side: a client reaches the one whose prefix it was given, by every kind of call.

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use nats_service::layer::Request;
use nats_service::{CallError, Retry, Running, Server, nats_service};
use nats_service_tests::{Nats, soon};
use std::time::Duration;
use tower::util::MapRequestLayer;

#[nats_service(timeout = "20s")]
trait Bell {
    /// Who hears it.
    async fn ring(&self) -> String;

    #[endpoint(queue_group = false)]
    async fn all(&self) -> String;

    #[kv_store(bucket = "rung", key = "bell.<id>", write = "before_reply")]
    async fn keep(&self, id: u32) -> String;

    async fn peal(&self, times: usize) -> impl Stream<Item = String> + Send;

    async fn tune(&self, notes: impl Stream<Item = String> + Send) -> String;
}

struct Tower(&'static str);

impl Bell for Tower {
    async fn ring(&self) -> String {
        self.0.to_owned()
    }

    async fn all(&self) -> String {
        self.0.to_owned()
    }

    async fn keep(&self, _id: u32) -> String {
        self.0.to_owned()
    }

    async fn peal(&self, times: usize) -> impl Stream<Item = String> + Send {
        stream::iter(0..times).map(|_| self.0.to_owned())
    }

    async fn tune(&self, notes: impl Stream<Item = String> + Send) -> String {
        let all: Vec<_> = notes.collect().await;
        format!("{}: {}", self.0, all.join(" "))
    }
}

async fn serve(nats: &Nats, prefix: &'static str) -> Running {
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let server = server.serve(BellServer::new(Tower(prefix)));
    server.prefix(prefix).start().await.expect("a deployment")
}

#[tokio::test]
async fn a_client_reaches_the_deployment_of_its_prefix_by_every_kind_of_call() {
    let nats = Nats::start().await;
    let _both = (serve(&nats, "blue").await, serve(&nats, "green.eu").await);
    let plain = BellClient::new(nats.client.clone()).with_jetstream(nats.js.clone());
    for prefix in ["blue", "green.eu"] {
        let at = plain.clone().with_prefix(prefix).unwrap();
        let layered = at
            .clone()
            .layer(MapRequestLayer::new(|request: Request| request));
        for client in [at, layered] {
            assert_eq!(soon("an answer", client.ring()).await.unwrap(), prefix);
            let all = soon("all", client.all().many().stall(Duration::from_millis(100))).await;
            let all = all.unwrap();
            assert_eq!(all.len(), 1, "{all:?}");
            assert_eq!(all[0].result.as_ref().unwrap().value, prefix);
            assert_eq!(soon("an answer", client.keep(7)).await.unwrap(), prefix);
            let peal = soon("a stream", client.peal(3)).await.unwrap();
            let peal: Vec<_> = soon("its end", peal.try_collect()).await.unwrap();
            assert_eq!(peal, [prefix; 3]);
            let notes = stream::iter(["a".to_owned(), "b".to_owned()]);
            let tune = soon("an answer", client.tune(notes)).await.unwrap();
            assert_eq!(tune, format!("{prefix}: a b"));
            // A bucket has no prefix: both deployments write to it, and both see it.
            let store = client.stores().unwrap().keep();
            let kept = store.at(7).unwrap().get().await.unwrap();
            assert_eq!(kept.unwrap().into_value(), prefix);
        }
    }
}

#[tokio::test]
async fn an_error_names_the_subject_with_its_prefix() {
    let nats = Nats::start().await;
    let _blue = serve(&nats, "blue").await;
    let client = BellClient::new(nats.client.clone());
    // Nobody is where the contract says.
    let error = soon("an error", client.ring()).await.unwrap_err();
    let names = |error: CallError, name: &str| {
        let CallError::NoResponders { subject } = error else {
            panic!("{error:?}");
        };
        assert_eq!(subject.as_str(), name);
    };
    names(error, "bell.ring");
    let client = client.with_prefix("red").unwrap();
    let error = soon("an error", client.ring()).await.unwrap_err();
    assert!(error.to_string().contains("`red.bell.ring`"), "{error}");
    names(error, "red.bell.ring");
    names(
        soon("an error", client.all().many()).await.unwrap_err(),
        "red.bell.all",
    );
    names(
        soon("an error", client.peal(1)).await.unwrap_err(),
        "red.bell.peal",
    );
    let patient = Retry::default().backoff(Duration::from_millis(1), Duration::from_millis(1));
    let error = soon("an error", client.ring().idempotent().retry(patient))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("`red.bell.ring`"), "{error}");
    let error = client.with_prefix("blue").unwrap().keep(7);
    let past = std::time::Instant::now();
    let error = soon("an error", error.deadline(past)).await.unwrap_err();
    assert!(error.to_string().contains("`blue.bell.keep`"), "{error}");
}

#[tokio::test]
async fn a_prefix_is_refused_where_the_server_refuses_it_and_an_empty_one_is_none() {
    let nats = Nats::start().await;
    let _bare = serve(&nats, "").await;
    let client = BellClient::new(nats.client.clone());
    for prefix in [
        "a b", "a..b", ".a", "a.", "a.*", ">", "$SRV", "_INBOX", "_INBOX.a", "é",
    ] {
        let server = Server::new(nats.client.clone()).serve(BellServer::new(Tower("x")));
        let refused = server.prefix(prefix).start().await.unwrap_err();
        let error = client.clone().with_prefix(prefix).unwrap_err();
        assert_eq!(error.prefix, prefix);
        assert_eq!(error.to_string(), refused.to_string());
    }
    let client = client.with_prefix("blue").unwrap();
    let client = client.with_prefix("").unwrap();
    assert_eq!(soon("an answer", client.ring()).await.unwrap(), "");
}

#[tokio::test]
async fn a_local_client_finds_its_service_whatever_the_prefix() {
    let client = BellClient::local(Tower("here"));
    let client = client.with_prefix("blue").unwrap();
    assert_eq!(soon("an answer", client.ring()).await.unwrap(), "here");
}
