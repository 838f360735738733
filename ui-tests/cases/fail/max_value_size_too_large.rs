use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<id>", max_value_size = "3GiB")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
