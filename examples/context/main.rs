//! A call's context: headers both ways, and a deadline that a chain of services shares.
//!
//! `cargo run --example context`

use nats_service::{
    CallError, ConnectionEvents, Context, Error, Server, async_nats::ConnectOptions, nats_service,
};
use nats_service_testkit::TestServer;
use std::time::{Duration, Instant};

#[nats_service(version = "1.0.0", timeout = "10s")]
trait Stock {
    /// Takes its time.
    async fn take(&self, #[context] ctx: &Context, article: String) -> u64;
}

#[nats_service(version = "1.0.0", timeout = "10s")]
trait Orders {
    async fn place(&self, #[context] ctx: &Context, article: String) -> Result<u64, Error>;
}

struct Shelf;

impl Stock for Shelf {
    async fn take(&self, ctx: &Context, article: String) -> u64 {
        println!("  stock: {:?} left for {article}", ctx.remaining());
        let seconds = if article == "tea" { 0 } else { 5 };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        3
    }
}

struct Shop {
    stock: StockClient,
}

impl Orders for Shop {
    async fn place(&self, ctx: &Context, article: String) -> Result<u64, Error> {
        let tenant = ctx.header("X-Tenant");
        let tenant = tenant.ok_or_else(|| Error::unauthenticated("who are you?"))?;
        println!("  order of {article} by {tenant}");
        ctx.set_header("X-Handled-By", ctx.instance())
            .map_err(|error| Error::internal(error.to_string()))?;
        // No longer than our own caller waits.
        let left = self.stock.with_context(ctx).take(article).await;
        left.map_err(|error: CallError| Error::new(error.code(), error.to_string()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let private = TestServer::start().await?;
    let events = ConnectionEvents::new();
    let options = events.install(ConnectOptions::new());
    let nats = options.connect(private.url()).await?;
    let stock = StockClient::new(nats.clone()).with_events(&events);
    let server = Server::new(nats.clone())
        .with_events(&events)
        .serve(StockServer::new(Shelf))
        .serve(OrdersServer::new(Shop { stock }));
    let running = server.start().await?;

    let nobody = OrdersClient::new(nats.clone());
    println!("{}", nobody.place("tea".to_string()).await.unwrap_err());

    let orders = OrdersClient::new(nats).with_header("X-Tenant", "acme")?;
    let reply = orders.place("tea".to_string()).reply().await?;
    let by = reply.headers.get("X-Handled-By");
    println!("{} left, says {by:?}", reply.value);

    // The whole chain has 300 ms, and nothing of it goes on after that.
    let begun = Instant::now();
    let hasty = orders
        .place("piano".to_string())
        .timeout(Duration::from_millis(300));
    let error = hasty.await.unwrap_err();
    println!("{error} (after {:?})", begun.elapsed());

    running.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
