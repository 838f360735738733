use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<region>.<id>")]
    async fn save(&self, region: String, id: String) -> String;
}

fn read(stores: ProfilesStores) {
    let _ = stores.save().at("us");
}

fn main() {}
