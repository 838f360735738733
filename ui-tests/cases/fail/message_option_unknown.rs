#[nats_service::message(krate = nats_service)]
pub struct Request {
    pub id: String,
}

fn main() {}
