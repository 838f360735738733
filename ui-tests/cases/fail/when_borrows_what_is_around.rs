use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "<id>", when = |response| response == answer)]
    async fn save(&self, id: String) -> String;
}

fn main() {}
