//! The metrics, and what is written about them: the guide, the dashboard.

use super::{EYES, Eyes};
use nats_service::{ConnectionEvents, METRICS, MetricKind, Server, nats_service};
use nats_service_testkit::TestServer;
use nats_service_tests::desk::{Act, KeeperClient, doing, keeper, task};
use nats_service_tests::{Nats, until, workspace};
use serde_json::Value;
use std::collections::BTreeSet;

/// Remembers its answers.
#[nats_service]
trait Shelf {
    #[kv_cache(bucket = "prices", key = "price.<article>", ttl = "1m")]
    async fn price(&self, article: String) -> u32;
}

struct Slow;

impl Shelf for Slow {
    async fn price(&self, article: String) -> u32 {
        article.len() as u32
    }
}

/// Names of series as names of metrics.
fn names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in text.split("nats_service_").skip(1) {
        let end = part
            .find(|c: char| !c.is_ascii_lowercase() && c != '_')
            .unwrap_or(part.len());
        let mut name = &part[..end];
        for suffix in ["_bucket", "_sum", "_count"] {
            name = name.strip_suffix(suffix).unwrap_or(name);
        }
        names.insert(format!("nats_service_{name}"));
    }
    names
}

fn documented() -> BTreeSet<String> {
    METRICS
        .iter()
        .map(|metric| metric.name.to_owned())
        .collect()
}

#[tokio::test]
async fn every_metric_of_the_list_is_emitted_with_its_labels_and_no_other() {
    let eyes = &*EYES;
    let nats = Nats::start().await;
    let _keeper = keeper(&nats).await;
    let client = KeeperClient::new(nats.client.clone());
    client.keep(task("a")).await.unwrap();
    client.keep(doing("a", Act::Fail, "")).await.unwrap_err();
    // A handler that waits is in flight.
    let held = tokio::spawn(client.keep(doing("a", Act::Hold, "")).into_future());
    let in_flight = |count: &str| {
        format!(r#"nats_service_requests_in_flight{{service="keeper",endpoint="keep"}} {count}"#)
    };
    until("one is in flight", async || {
        eyes.metrics.render().contains(&in_flight("1"))
    })
    .await;
    _keeper.worker.gate.add_permits(1);
    held.await.unwrap().unwrap();
    until("none is in flight", async || {
        eyes.metrics.render().contains(&in_flight("0"))
    })
    .await;
    until("the writes are counted", async || {
        let text = eyes.metrics.render();
        let stored = text
            .lines()
            .find(|line| line.starts_with(r#"nats_service_writes_stored_total{bucket="kept"}"#));
        stored.is_some_and(|line| {
            line.rsplit(' ')
                .next()
                .is_some_and(|count| count.parse::<u64>().unwrap() >= 2)
        })
    })
    .await;
    let shelf = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let _shelf = shelf.serve(ShelfServer::new(Slow)).start().await.unwrap();
    let client = ShelfClient::new(nats.client.clone());
    until("an answer comes from the cache", async || {
        client.price("a".to_owned()).await.unwrap();
        let text = eyes.metrics.render();
        let hit = r#"nats_service_cache_total{service="shelf",endpoint="price",outcome="hit"}"#;
        let hit = text.lines().find_map(|line| line.strip_prefix(hit));
        hit.is_some_and(|count| count.trim() != "0")
    })
    .await;
    watched_connection(eyes).await;
    let text = eyes.metrics.render();
    assert_eq!(names(&text), documented());
    for line in text
        .lines()
        .filter(|line| line.starts_with("# TYPE nats_service"))
    {
        let mut words = line.split(' ').skip(2);
        let (name, kind) = (words.next().unwrap(), words.next().unwrap());
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
        let expected = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        assert_eq!(kind, expected, "{name}");
    }
    for line in text.lines().filter(|line| line.starts_with("nats_service")) {
        let (name, labels) = line.split_once('{').expect("labels");
        let name = names(name).pop_first().unwrap();
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
        let labels = labels.split_once('}').unwrap().0.split(',');
        let labels = labels
            .filter_map(|pair| Some(pair.split_once('=')?.0))
            .filter(|label| *label != "le");
        assert_eq!(labels.collect::<Vec<_>>(), metric.labels, "{line}");
    }
    for series in [
        r#"nats_service_requests_total{service="keeper",endpoint="keep",code="AlreadyExists"}"#,
        r#"nats_service_calls_total{subject="keeper.keep",code="AlreadyExists"}"#,
    ] {
        assert!(text.contains(series), "{series}:\n{text}");
    }
}

const USERS: &str = r#"
authorization { users: [
  { user: "narrow", password: "p", permissions: { publish: { deny: ["no.>"] }, subscribe: { deny: ["no.>"] } } }
] }
"#;

/// How often it says that this has happened to a connection.
fn connection_events(eyes: &Eyes, event: &str) -> Option<u64> {
    let series = format!(r#"nats_service_connection_events_total{{event="{event}"}} "#);
    let text = eyes.metrics.render();
    let count = text.lines().find_map(|line| line.strip_prefix(&series))?;
    count.parse().ok()
}

/// A connection to which everything happens that can be brought about.
async fn watched_connection(eyes: &Eyes) {
    let builder = TestServer::builder().jetstream(false).config(USERS);
    let server = builder.start().await.expect("a server");
    let events = ConnectionEvents::new();
    let options = async_nats::ConnectOptions::with_user_and_password("narrow".into(), "p".into());
    let options = events.install(options).subscription_capacity(1);
    let client = options.connect(server.url()).await.expect("a connection");
    until("it is there", async || {
        connection_events(eyes, "connected").is_some()
    })
    .await;
    // Those that have not happened are there as well, so that their rate can be told.
    for event in ["denied_publish", "slow_consumer", "lame_duck", "error"] {
        assert!(connection_events(eyes, event).is_some(), "{event}");
    }
    let before = |event: &str| connection_events(eyes, event).unwrap_or_default();
    let (published, subscribed) = (before("denied_publish"), before("denied_subscription"));
    let slow = before("slow_consumer");
    let _deaf = client.subscribe("no.ear").await.expect("a line is sent");
    client.publish("no.mouth", "".into()).await.expect("it is");
    let _unread = client.subscribe("flood").await.expect("a subscription");
    for _ in 0..100 {
        let sent = client.publish("flood", "x".into()).await;
        sent.expect("a connection");
    }
    until("all of it is counted", async || {
        before("denied_publish") == published + 1
            && before("denied_subscription") == subscribed + 1
            && before("slow_consumer") > slow
    })
    .await;
    assert_eq!(events.counts().denials, 2);
    server.kill().await.expect("a kill");
    until("it is lost", async || before("disconnected") > 0).await;
}

#[test]
fn the_dashboard_shows_every_metric_and_names_none_that_is_not_there() {
    let file = workspace().join("examples/observability/dashboard.json");
    let text = std::fs::read_to_string(file).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            shown.extend(names(target["expr"].as_str().unwrap()));
        }
    }
    assert_eq!(shown, documented());
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            assert!(names(query).is_subset(&documented()), "{query}");
        }
    }
}

#[test]
fn the_guide_lists_every_metric_as_it_is() {
    let text = std::fs::read_to_string(workspace().join("docs/guide/observability.md")).unwrap();
    for metric in METRICS {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let line = format!("| `{}` | {kind} | {} |", metric.name, labels.join(", "));
        assert!(text.contains(&line), "the guide lacks: {line}");
    }
    assert_eq!(names(&text), documented());
}
