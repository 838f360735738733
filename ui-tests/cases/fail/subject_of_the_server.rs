use nats_service::nats_service;

#[nats_service(subject = "$SRV.x")]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

fn main() {}
