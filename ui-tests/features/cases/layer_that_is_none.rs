//! What is put around calls is no layer of tower.
use nats_service::{Server, nats_service};

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: u64) -> u64;
}

struct NotALayer;

fn around_a_client(profiles: ProfilesClient) -> ProfilesClient {
    profiles.layer(NotALayer)
}

fn around_a_server(server: Server) -> Server {
    server.layer(NotALayer)
}

fn main() {}
