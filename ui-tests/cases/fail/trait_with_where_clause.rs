use nats_service::nats_service;

#[nats_service]
pub trait Profiles
where
    Self: Clone,
{
    async fn save(&self) -> String;
}

fn main() {}
