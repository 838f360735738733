use nats_service::nats_service;

type Outcome<T> = Result<T, String>;

#[nats_service]
pub trait Profiles {
    async fn save(&self, id: String) -> Outcome<String>;
}

fn main() {}
