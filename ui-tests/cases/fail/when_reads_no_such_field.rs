use nats_service::{message, nats_service};

#[message]
pub struct Profile {
    pub id: String,
}

#[nats_service]
pub trait Profiles {
    #[kv_store(bucket = "a", key = "<id>", when = |request, response| request.id != response.ident)]
    async fn save(&self, request: Profile) -> Profile;
}

fn main() {}
