//! By which prefix the JetStream API is asked.

use super::*;
use async_nats::jetstream;
use nats_service_testkit::TestServer;

#[tokio::test]
async fn the_prefix_of_a_contexts_api_is_known() {
    let server = TestServer::start().await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let prefix = |js| api_prefix(&js);
    assert_eq!(prefix(jetstream::new(client.clone())), None);
    let domain = jetstream::with_domain(client.clone(), "hub");
    assert_eq!(prefix(domain).as_deref(), Some("$JS.hub.API"));
    let import = jetstream::with_prefix(client, "theirs.js");
    assert_eq!(prefix(import).as_deref(), Some("theirs.js"));
}
