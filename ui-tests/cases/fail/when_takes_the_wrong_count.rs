use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "<id>", when = |id, answer, more| true)]
    async fn save(&self, id: String) -> String;

    #[kv_evict(bucket = "b", key = "<id>", when = |request, response| true)]
    async fn delete(&self, id: String, force: bool) -> bool;

    #[kv_store(bucket = "c", key = "all", when = || true)]
    async fn list(&self) -> Vec<String>;
}

fn main() {}
