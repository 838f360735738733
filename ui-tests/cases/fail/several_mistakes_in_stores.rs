use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "profiles", key = "user.<id>", history = 0)]
    async fn save(&self, id: String) -> String;

    #[object_store(bucket = "files", key = "file.<path..>")]
    async fn render(&self, path: &str) -> Vec<u8>;
}

// None of what follows is reported.
async fn read(stores: ProfilesStores) -> Result<(), nats_service::StoreError> {
    let store: ProfilesSaveStore = stores.save();
    let _ = store.at("a")?;
    let _ = store.matching(nats_service::Any)?;
    let _ = stores.render().at("a.b")?;
    Ok(())
}

fn main() {}
