use nats_service::endpoint;

#[endpoint(subject = "save")]
pub fn save() {}

fn main() {}
