use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "<id>")]
    #[kv_store(bucket = "b", key = "<id>", name = "copies")]
    async fn save(&self, id: String) -> String;

    #[object_store(bucket = "c", key = "<id>", name = "copies")]
    async fn render(&self, id: String) -> String;
}

// The stores are there all the same.
fn read(stores: ProfilesStores) {
    let _: ProfilesSaveStore = stores.save();
    let _: ProfilesCopiesStore = stores.copies();
}

fn main() {}
