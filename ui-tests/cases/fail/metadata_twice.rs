use nats_service::nats_service;

#[nats_service(metadata(a = "1", a = "2", b = 3))]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
