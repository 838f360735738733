use nats_service::nats_service;

#[nats_service(name = "a", name = "b")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
