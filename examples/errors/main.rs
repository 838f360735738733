//! Errors with fields, on both sides of the wire; and what lies behind one, at the service alone.
//!
//! `cargo run --example errors`

use nats_service::{CallError, Cause, Code, Server, ServiceError, async_nats, nats_service};
use nats_service_testkit::TestServer;
use std::time::Duration;

/// Why a transfer is not made.
#[derive(Debug, ServiceError)]
enum TransferError {
    #[service_error(code = FailedPrecondition, message = "{missing} cents are missing")]
    NotEnough { missing: u64 },
    #[service_error(code = Unavailable, message = "the ledger cannot be written now")]
    Ledger { cause: Cause },
}

#[nats_service(version = "1.0.0")]
trait Bank {
    /// Gives what is left.
    async fn transfer(&self, cents: u64) -> Result<u64, TransferError>;
}

struct Ledger;

impl Bank for Ledger {
    async fn transfer(&self, cents: u64) -> Result<u64, TransferError> {
        if cents == 13 {
            let cause = std::fs::write("/no/such/disk/ledger", "13").unwrap_err();
            let cause = Cause::new(cause);
            return Err(TransferError::Ledger { cause });
        }
        match 100_u64.checked_sub(cents) {
            Some(left) => Ok(left),
            None => Err(TransferError::NotEnough {
                missing: cents - 100,
            }),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The service's log, where the causes are.
    tracing_subscriber::fmt().init();
    let private = TestServer::start().await?;
    let nats = async_nats::connect(private.url()).await?;
    let server = Server::new(nats.clone()).serve(BankServer::new(Ledger));
    let running = server.start().await?;

    let bank = BankClient::new(nats);
    for cents in [30, 250, 13] {
        match bank.transfer(cents).await {
            Ok(left) => println!("{cents}: {left} cents are left"),
            Err(CallError::Service(TransferError::NotEnough { missing })) => {
                println!("{cents}: put {missing} cents into the account first");
            }
            // By its code, whatever else it is: a refusal, a time-out, nobody there.
            Err(error) if error.code() == Code::Unavailable => {
                println!("{cents}: later, perhaps: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    running.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}
