use nats_service::message;

#[message(schema)]
struct Profile {
    id: String,
}

fn main() {}
