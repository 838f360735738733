use nats_service::{message, nats_service};

#[message]
pub struct Profile {
    pub id: String,
}

#[nats_service]
pub trait Profiles {
    #[kv_cache(bucket = "a", key = "user.<response.id>", ttl = "10m")]
    async fn find(&self, mail: String) -> Profile;
}

fn main() {}
