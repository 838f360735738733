use nats_service::nats_service;

#[nats_service(vesion = "1.0.0", timeout = 5)]
pub trait Profiles {
    type Answer;

    #[kv_store(bucket = "user.profiles", key = "user.<id", history = 100)]
    fn save(&self, id: String) -> String;

    async fn stores(&mut self);

    #[kv_store(buckt = "profiles")]
    async fn load(&self, id: String) -> Result<String, nats_service::Error>;
}

// None of what follows is reported: the names exist all the same.

struct Postgres;

impl Profiles for Postgres {
    type Answer = u8;

    fn save(&self, id: String) -> String {
        id
    }

    async fn stores(&mut self) {}

    async fn load(&self, id: String) -> Result<String, nats_service::Error> {
        Ok(id)
    }
}

async fn run(nats: nats_service::async_nats::Client) {
    let _ = nats_service::Server::new(nats.clone()).serve(ProfilesServer::new(Postgres));
    let client = ProfilesClient::new(nats);
    let loaded: String = client.load("a".to_string()).await.unwrap();
    let _ = client.save(&loaded).await;
    let _ = ProfilesContract::SPEC;
}

fn main() {}
