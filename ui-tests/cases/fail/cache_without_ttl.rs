use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_cache(bucket = "a", key = "user.<id>")]
    async fn find(&self, id: String) -> String;
}

fn main() {}
