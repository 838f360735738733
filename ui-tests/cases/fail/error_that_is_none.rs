use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: String) -> Result<String, std::io::Error>;
}

fn main() {}
