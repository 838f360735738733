use nats_service::nats_service;

#[nats_service]
trait Greeter {
    async fn hello(&self, name: String) -> String;
}

struct Timeout;

fn slow(greeter: GreeterClient) -> GreeterClient {
    greeter.layer(Timeout)
}

fn main() {}
