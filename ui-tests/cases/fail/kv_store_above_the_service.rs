use nats_service::{kv_store, nats_service};

#[kv_store(bucket = "profiles", key = "<id>")]
#[nats_service]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
