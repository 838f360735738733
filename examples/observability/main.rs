//! A service that can be watched: spans on the terminal, metrics as Prometheus reads them.
//!
//! ```sh
//! cargo run --example observability              # on a private nats-server; ends by itself
//! RUST_LOG=nats_service=debug cargo run --example observability
//! ```
//!
//! `dashboard.json` beside this file is a Grafana dashboard of all metrics. A service of yours serves the text on a port: that is
//! `PrometheusBuilder::with_http_listener`, behind that crate's feature `http-listener`.

use metrics_exporter_prometheus::PrometheusBuilder;
use nats_service::async_nats::{ConnectOptions, jetstream};
use nats_service::{CallError, ConnectionEvents, Error, METRICS, Server, nats_service};
use nats_service_testkit::TestServer;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Weighs parcels.
#[nats_service(version = "1.0.0")]
trait Scales {
    /// Weighs one, and keeps its weight.
    #[kv_store(bucket = "weights", key = "parcel.<id>")]
    async fn weigh(&self, id: String, grams: u32) -> Result<u32, Error>;
}

struct Shop;

impl Scales for Shop {
    async fn weigh(&self, id: String, grams: u32) -> Result<u32, Error> {
        // Inside the request's span: what is logged here belongs to it.
        tracing::debug!(%id, "on the scales");
        tokio::time::sleep(Duration::from_millis(u64::from(grams) % 7)).await;
        if grams > 30_000 {
            return Err(Error::invalid_argument("too heavy"));
        }
        Ok(grams)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: a server asks for its instruments when it starts.
    let metrics = PrometheusBuilder::new()
        .set_buckets(&[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        ])?
        .install_recorder()?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "nats_service=info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::CLOSE)
        .init();

    let server = TestServer::start().await?;
    // What happens to the connection is counted, too.
    let events = ConnectionEvents::new();
    let options = events.install(ConnectOptions::new());
    let nats = options.connect(server.url()).await?;
    let js = jetstream::new(nats.clone());
    let service = Server::new(nats.clone())
        .with_events(&events)
        .with_jetstream(js);
    let running = service.serve(ScalesServer::new(Shop)).start().await?;

    let scales = ScalesClient::new(nats);
    for (id, grams) in [("a", 500), ("b", 1_200), ("c", 31_000)] {
        match scales.weigh(id.to_owned(), grams).await {
            Ok(grams) => println!("{id}: {grams} g"),
            Err(CallError::Service(error)) => println!("{id}: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    // Draining sees the writes out, and their figures with them.
    running.shutdown(Duration::from_secs(10)).await?;

    println!("\n{}", metrics.render());
    println!("{} metrics are documented", METRICS.len());
    Ok(())
}
