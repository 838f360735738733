use nats_service::nats_service;

#[nats_service(crate = "renamed")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
