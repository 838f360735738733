//! A private trait in the body of a function.
#![deny(warnings)]

fn main() {
    use nats_service::{Error, ServiceError, nats_service};

    #[derive(Debug, ServiceError)]
    #[service_error(code = NotFound, message = "no {what}")]
    struct Missing {
        what: String,
    }

    struct Pair<T>(T);
    impl<T> Pair<T> {
        fn into_inner(self) -> T {
            self.0
        }
    }

    #[nats_service]
    trait Local {
        #[kv_store(bucket = "local", key = "<a>.<b>")]
        async fn add(&self, a: u32, b: u32) -> u32;
        async fn find(&self, what: String) -> Result<u32, Missing>;
        async fn other(&self) -> Result<(), Error>;
    }

    struct Here;
    impl Local for Here {
        async fn add(&self, a: u32, b: u32) -> u32 {
            a + b
        }
        async fn find(&self, what: String) -> Result<u32, Missing> {
            Err(Missing { what })
        }
        async fn other(&self) -> Result<(), Error> {
            Ok(())
        }
    }

    let server = LocalServer::new(Here);
    assert!(format!("{server:?}").contains("local.add"));
    assert_eq!(Pair(LocalContract::SPEC.methods.len()).into_inner(), 3);
}
