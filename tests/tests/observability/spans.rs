//! The spans of requests, calls, streams and writes: names, fields, and how they end.

use super::{CrewClient, CrewServer, EYES, Eyes, Sailor};
use futures_util::{StreamExt as _, stream};
use nats_service::Server;
use nats_service::layer::Request;
use nats_service_tests::desk::{Act, DeskClient, KeeperClient, desk, doing, keeper, task};
use nats_service_tests::spout::{self, Act as Drip, SpoutClient, to};
use nats_service_tests::{Nats, soon, until};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower::util::MapRequestLayer;

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn requests_calls_and_writes_have_spans_of_the_documented_names_and_fields() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let _keeper = keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone());
    client.keep_surely(task("seen")).await.unwrap();
    let write = eyes.span("write", "key", "task.seen").await;
    assert_eq!(write.name, "write");
    let expected = [
        ("otel.name", "sure"),
        ("otel.kind", "producer"),
        ("bucket", "sure"),
        ("key", "task.seen"),
        ("revision", "1"),
        ("code", "Ok"),
    ];
    assert_eq!(write.fields, pairs(&expected));
    let request = eyes.span("request", "rpc.method", "keep_surely").await;
    assert_eq!(request.name, "request");
    let common = [
        ("otel.name", "keeper.keep_surely"),
        ("rpc.system", "nats"),
        ("rpc.method", "keep_surely"),
        ("messaging.destination.name", "keeper.keep_surely"),
        ("code", "Ok"),
    ];
    let mut expected = pairs(&common);
    expected.extend(pairs(&[("otel.kind", "server"), ("rpc.service", "keeper")]));
    assert_eq!(request.fields, expected);
    let call = eyes.span("call", "rpc.method", "keep_surely").await;
    assert_eq!(call.name, "call");
    let mut expected = pairs(&common);
    expected.extend(pairs(&[("otel.kind", "client")]));
    assert_eq!(call.fields, expected);
}

#[tokio::test]
async fn a_span_says_how_its_request_failed() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let _desk = desk(&nats).await;
    let client = DeskClient::new(nats.client.clone());
    for (act, code) in [
        (Act::Fail, "AlreadyExists"),
        (Act::Panic, "Internal"),
        (Act::PanicLater, "Internal"),
    ] {
        eyes.closed
            .0
            .lock()
            .unwrap()
            .retain(|one| one.fields.get("rpc.method").is_none_or(|it| it != "other"));
        client.other(doing("a", act, "x")).await.unwrap_err();
        for target in ["request", "call"] {
            let span = eyes.span(target, "rpc.method", "other").await;
            assert_eq!(span.fields["code"], code, "{target}");
            assert_eq!(span.fields["otel.status_code"], "ERROR", "{target}");
        }
    }
    client.hasty(doing("a", Act::Hold, "")).await.unwrap_err();
    let span = eyes.span("request", "rpc.method", "hasty").await;
    assert_eq!(span.fields["code"], "DeadlineExceeded");
}

impl Eyes {
    /// Waits for the calls of this subject, and sees that they ended so and have been counted; an empty code is that of a call
    /// that was given up. Spans close in any order, since a stream's task has its own.
    async fn codes(&self, subject: &str, expected: &[&str]) {
        let method = subject.rsplit('.').next().unwrap();
        let of_subject = || {
            let all = self.closed.0.lock().unwrap();
            let all = all.iter().filter(|one| {
                let to = one.fields.get("messaging.destination.name");
                one.target == "nats_service::call" && to.is_some_and(|to| to == subject)
            });
            all.cloned().collect::<Vec<_>>()
        };
        until(&format!("all calls of {subject}"), async || {
            of_subject().len() >= expected.len()
        })
        .await;
        let mut seen = of_subject();
        seen.sort_by_key(|one| one.fields.get("code").cloned());
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let codes: Vec<_> = seen
            .iter()
            .map(|one| one.fields.get("code").map_or("", |code| code))
            .collect();
        assert_eq!(codes, expected, "{subject}");
        for (one, code) in seen.iter().zip(&expected) {
            let name = subject.split_once('.').unwrap().1;
            let mut fields = pairs(&[
                ("otel.name", name),
                ("otel.kind", "client"),
                ("rpc.system", "nats"),
                ("rpc.method", method),
                ("messaging.destination.name", subject),
                ("code", code),
                ("otel.status_code", "ERROR"),
            ]);
            fields.retain(|name, value| {
                !value.is_empty() && (name != "otel.status_code" || !matches!(*code, "" | "Ok"))
            });
            assert_eq!((&*one.name, &one.fields), ("call", &fields));
        }
        let text = self.metrics.render();
        let count = |series: String| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(&*series)?.trim().parse::<usize>().ok())
        };
        let counted: BTreeSet<_> = expected.iter().filter(|code| !code.is_empty()).collect();
        for code in &counted {
            let name = "nats_service_calls_total";
            let series = format!("{name}{{subject=\"{subject}\",code=\"{code}\"}}");
            let often = expected.iter().filter(|one| *one == *code).count();
            assert_eq!(count(series), Some(often), "{subject} {code}:\n{text}");
        }
        let name = "nats_service_call_duration_seconds_count";
        let timed = expected.iter().filter(|code| !code.is_empty()).count();
        let series = format!("{name}{{subject=\"{subject}\"}}");
        assert_eq!(count(series), Some(timed), "{subject}:\n{text}");
    }
}

#[tokio::test]
async fn streams_are_calls_that_end_with_their_streams() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let served = spout::serve_on(nats.client.clone(), |server| server.prefix("seen")).await;
    let client = SpoutClient::new(nats.client.clone());
    let nobody = client.clone().with_prefix("unseen").unwrap();
    let client = client.with_prefix("seen").unwrap();
    let layered = client
        .clone()
        .layer(MapRequestLayer::new(|request: Request| request));

    for client in [&client, &layered] {
        let all = soon("a stream", client.count(to(3))).await.unwrap();
        assert_eq!(soon("all", all.count()).await, 3);
    }
    let all = soon("a stream", client.count(spout::doing(3, Drip::Fail))).await;
    assert_eq!(soon("all", all.unwrap().count()).await, 4);
    let refused = client.count(spout::doing(3, Drip::Refuse));
    soon("an error", refused).await.unwrap_err();
    let mut some = soon("a stream", client.count(spout::doing(3, Drip::Stay)))
        .await
        .unwrap();
    soon("an item", some.next()).await.unwrap().unwrap();
    // A reader that has enough has not failed.
    drop(some);
    served.seen.until_running(0).await;
    eyes.codes(
        "seen.spout.count",
        &["Ok", "Ok", "OutOfRange", "OutOfRange", "Ok"],
    )
    .await;
    soon("an error", nobody.count(to(3))).await.unwrap_err();
    eyes.codes("unseen.spout.count", &["Unavailable"]).await;

    let within = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&within);
    let numbers = stream::iter([1, 2]).inspect(move |_| {
        let name = tracing::Span::current().metadata().map(|span| span.name());
        seen.lock().unwrap().extend(name);
    });
    assert_eq!(soon("a sum", client.sum(1, numbers)).await.unwrap(), 4);
    assert_eq!(*within.lock().unwrap(), ["call", "call"]);
    let fails = client.sum(1, stream::iter([u64::MAX]));
    soon("an error", fails).await.unwrap_err();
    eyes.codes("seen.spout.sum", &["Ok", "OutOfRange"]).await;

    let both = client.echo(stream::iter([spout::Drop::default()]), to(0));
    let both = soon("a stream", both).await.unwrap();
    assert_eq!(soon("all", both.count()).await, 1);
    let refused = client.echo(stream::pending(), spout::doing(0, Drip::Refuse));
    soon("an error", refused).await.unwrap_err();
    eyes.codes("seen.spout.echo", &["Ok", "OutOfRange"]).await;

    // Given up before it was answered: nobody knows how it would have ended, and it is not counted.
    let given_up = tokio::time::timeout(Duration::from_millis(20), client.late().into_future());
    given_up.await.unwrap_err();
    soon("an error", client.late()).await.unwrap_err();
    eyes.codes("seen.spout.late", &["", "DeadlineExceeded"])
        .await;
}

#[tokio::test]
async fn a_question_to_every_instance_is_one_call_that_ends_with_its_answers() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let server = Server::new(nats.client.clone()).serve(CrewServer::new(Sailor));
    let _crew = server.prefix("seen").start().await.unwrap();
    let client = CrewClient::new(nats.client.clone());
    let nobody = client.clone().with_prefix("unseen").unwrap();
    let client = client.with_prefix("seen").unwrap();
    let layered = client
        .clone()
        .layer(MapRequestLayer::new(|request: Request| request));
    for client in [&client, &layered] {
        soon("an answer", client.number()).await.unwrap();
        let all = soon("all", client.number().many().most(1)).await.unwrap();
        assert_eq!(all.len(), 1);
    }
    let answers = soon("an answer", client.number().many().stream()).await;
    drop(answers.unwrap());
    eyes.codes("seen.crew.number", &["Ok"; 5]).await;
    soon("an error", nobody.number().many()).await.unwrap_err();
    eyes.codes("unseen.crew.number", &["Unavailable"]).await;
}
