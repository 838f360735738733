use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "<id>", max_bytes = 64MiB)]
    async fn save(&self, id: String) -> String;
}

fn main() {}
