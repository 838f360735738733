use nats_service::nats_service;

#[nats_service(subject = "a.>")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
