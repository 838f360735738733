//! The permissions that `docs/SECURITY.md` names are enough, role by role: a server with a user for each, who may do that
//! and nothing else.

mod each;
mod kv;
mod object;
mod service;
mod streaming;

use async_nats::jetstream;
use nats_service::message;
use nats_service_testkit::TestServer;
use nats_service_tests::workspace;
use std::time::Duration;

/// How long a read waits that is to be denied.
const DENIED: Duration = Duration::from_millis(500);

#[message]
#[derive(Debug, PartialEq)]
struct Note {
    id: String,
    text: String,
}

/// The roles' tables of `docs/SECURITY.md`, by their headings, with the names that its text has as placeholders filled in.
fn permissions(role: &str) -> (Vec<String>, Vec<String>) {
    let file = workspace().join("docs/SECURITY.md");
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

fn note(id: &str, text: &str) -> Note {
    Note {
        id: id.into(),
        text: text.into(),
    }
}
