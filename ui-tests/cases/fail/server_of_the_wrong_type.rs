use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: String) -> String;
}

struct Postgres;

fn main() {
    let _ = ProfilesServer::new(Postgres);
}
