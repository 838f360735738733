pub trait Profiles {
    #[nats_service::kv_store(bucket = "profiles", key = "<id>")]
    async fn save(&self, id: String) -> String;
}

fn main() {}
