use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save_it(&self) -> u8;
    #[allow(non_snake_case)]
    async fn saveIt(&self) -> u8;
    async fn save__it(&self) -> u8;
}

fn main() {}
