use nats_service::nats_service;

#[nats_service(queue_group = true)]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
