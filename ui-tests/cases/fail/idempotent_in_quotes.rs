use nats_service::nats_service;

#[nats_service]
trait Lamps {
    #[endpoint(idempotent = "yes")]
    async fn switch_on(&self, lamp: u32);
}

fn main() {}
