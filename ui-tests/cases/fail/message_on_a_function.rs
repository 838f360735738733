#[nats_service::message]
pub fn save() {}

fn main() {}
