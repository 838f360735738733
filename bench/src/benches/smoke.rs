//! The harness itself, in a few seconds and without any claim: does everything start, and is every request answered? Its output
//! is one line of JSON a load, which the test of this package reads.

use crate::Result;
use crate::contender::{Contender, Workload};
use crate::process::{End, Load, Sending, Service};
use nats_service_testkit::TestServer;
use std::time::Duration;

pub(super) async fn run() -> Result<()> {
    let server = TestServer::start().await?;
    let contender = Contender::Bare;
    let service = Service::start(server.url(), contender, Workload::Echo, 0).await?;
    for sending in [
        Sending::InFlight(1),
        Sending::InFlight(64),
        Sending::Rate(2_000.0),
    ] {
        let load = Load {
            sending,
            warm_up: Duration::from_millis(100),
            end: End::Requests(1_000),
        };
        let measured = service.measure(&load).await?;
        println!("{}", serde_json::to_string(&measured.outcome)?);
    }
    Ok(())
}
