use nats_service::{kv_store, nats_service};

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

struct Postgres;

impl Profiles for Postgres {
    #[kv_store(bucket = "profiles", key = "<id>")]
    async fn save(&self, id: String) -> String {
        id
    }
}

fn main() {}
