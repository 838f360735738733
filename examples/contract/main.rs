//! A contract as a document: AsyncAPI for other languages, and a test that keeps its promises.
//!
//! ```sh
//! cargo run --example contract                # prints the document
//! cargo test --example contract               # is it what was committed?
//! NATS_SERVICE_CONTRACT=update cargo test --example contract     # it is to be something new: write it, and commit it
//! ```
//!
//! The document goes to `asyncapi generate`, to a catalogue, to the team on the other side. No server is needed for it, and no
//! implementation.

use nats_service::{ServiceError, message, nats_service};

/// Orders of a shop.
#[nats_service(version = "1.1.0", metadata(owner = "shop"))]
pub trait Orders {
    /// Takes an order. It is kept before the reply, so that nobody who was told of it finds nothing.
    #[endpoint(timeout = "2s")]
    #[kv_store(
        bucket = "orders",
        key = "order.<response.id>",
        history = 10,
        ttl = "90d",
        write = "before_reply"
    )]
    async fn place(&self, request: PlaceOrder) -> Result<Order, OrderError>;

    /// Calls an order off.
    #[kv_evict(bucket = "orders", key = "order.<id>")]
    async fn cancel(&self, id: String, reason: Option<String>) -> Result<(), OrderError>;
}

/// What somebody wants.
#[message(schema)]
#[derive(Debug)]
pub struct PlaceOrder {
    /// The customer's number.
    pub customer: String,
    /// At least one.
    pub items: Vec<Item>,
    /// A later version added it, and a default keeps old callers working.
    #[serde(default)]
    pub note: Option<String>,
}

/// So many of something.
#[message(schema)]
#[derive(Debug, Clone)]
pub struct Item {
    /// The article's number.
    pub article: String,
    /// How many.
    pub quantity: u32,
}

/// An order that was taken.
#[message(schema)]
#[derive(Debug)]
pub struct Order {
    /// Made by the shop.
    pub id: String,
    /// What was ordered.
    pub items: Vec<Item>,
    /// How far it is.
    pub state: State,
}

/// How far an order is.
#[message(schema)]
#[serde(rename_all = "snake_case")]
#[derive(Debug)]
pub enum State {
    /// Nobody has looked at it yet.
    Placed,
    /// On its way.
    Shipped,
}

/// Why there is no order.
#[derive(Debug, ServiceError)]
pub enum OrderError {
    /// More than there is.
    #[service_error(code = OutOfRange, message = "{wanted} of {article} are too many, {left} are left")]
    TooMany {
        /// The article's number.
        article: String,
        /// What was asked for.
        wanted: u32,
        /// What there is.
        left: u32,
    },
    /// It is on its way already.
    #[service_error(code = FailedPrecondition, message = "the order was shipped")]
    Shipped,
}

fn main() {
    println!("{}", OrdersContract::asyncapi());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_the_one_that_was_committed_or_has_a_new_version() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/contracts/orders.json");
        let checked = nats_service::contract::check(file, &OrdersContract::asyncapi());
        checked.unwrap_or_else(|error| panic!("{error}"));
    }
}
