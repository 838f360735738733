use nats_service::nats_service;

#[nats_service]
pub trait Profiles<T> {
    async fn save(&self, value: T) -> T;
}

struct Mine;

impl Profiles<u8> for Mine {
    async fn save(&self, value: u8) -> u8 {
        value
    }
}

fn serve() {
    let _ = ProfilesServer::new(Mine);
}

fn main() {}
