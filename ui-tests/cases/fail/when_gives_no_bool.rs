use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "<id>", when = |id, answer| answer.len())]
    async fn save(&self, id: String) -> String;
}

fn main() {}
