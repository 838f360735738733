//! What is made here is read by the official Python and JavaScript clients, and the other way round. A story is told once,
//! and runs with either; `each_language!` makes the tests of it.

mod kv;
mod object;
mod service;
mod streams;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A test for each language of each of these stories: `async fn(Peer, Nats)`.
macro_rules! each_language {
    ($($story:ident)*) => {
        mod python {
            $(#[tokio::test]
            async fn $story() {
                crate::tell(nats_service_tests::foreign::Language::Python, super::$story).await;
            })*
        }

        mod node {
            $(#[tokio::test]
            async fn $story() {
                crate::tell(nats_service_tests::foreign::Language::Node, super::$story).await;
            })*
        }
    };
}
pub(crate) use each_language;

use nats_service_tests::Nats;
use nats_service_tests::foreign::{Language, Peer};

async fn tell(language: Language, story: impl AsyncFnOnce(Peer, Nats)) {
    let nats = Nats::start().await;
    let peer = Peer::start(language, nats.server.url()).await;
    story(peer, nats).await;
}

/// Bytes as they travel to a peer.
fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// Bytes as they come from a peer.
fn decode(text: &serde_json::Value) -> Vec<u8> {
    let text = text.as_str().expect("base64");
    STANDARD.decode(text).expect("base64")
}
