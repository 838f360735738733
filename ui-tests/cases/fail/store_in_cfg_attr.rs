use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[cfg_attr(unix, kv_store(bucket = "a", key = "<id>"))]
    async fn save(&self, id: String) -> String;
}

fn main() {}
