use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save<T: Clone>(&self, value: T) -> T;
}

fn main() {}
