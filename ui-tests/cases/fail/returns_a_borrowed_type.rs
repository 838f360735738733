use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: String) -> Result<std::borrow::Cow<'_, str>, nats_service::Error>;
}

fn main() {}
