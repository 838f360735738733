//! Visibility follows the trait, and types of a private module may stay private.
#![deny(warnings)]

mod inner {
    use nats_service::{message, nats_service};

    #[message]
    pub(super) struct Request {
        pub(super) id: String,
    }

    #[message]
    struct Hidden {
        id: String,
    }

    #[nats_service]
    pub(super) trait Visible {
        #[kv_store(bucket = "requests", key = "<id>")]
        async fn echo(&self, request: Request) -> Request;
    }

    #[nats_service]
    trait Private {
        #[kv_store(bucket = "requests", key = "<id>")]
        async fn hide(&self, request: Hidden) -> Hidden;
    }
}

use inner::{Request, Visible, VisibleClient, VisibleServer, VisibleStores};

struct Echo;

impl Visible for Echo {
    async fn echo(&self, request: Request) -> Request {
        request
    }
}

fn assert_clone_and_debug<T: Clone + std::fmt::Debug>() {}

fn main() {
    let _ = VisibleServer::new(Echo);
    let _ = VisibleServer::from_arc(std::sync::Arc::new(Echo));
    assert_clone_and_debug::<VisibleClient>();
    assert_clone_and_debug::<VisibleStores>();
    assert_clone_and_debug::<inner::VisibleEchoStore>();
    let _ = Request { id: String::new() }.id;
}
