use nats_service::nats_service;

#[nats_service]
trait Caches {
    async fn size(&self) -> u64;
}

async fn ask(caches: CachesClient) {
    let _ = caches.size().many().await;
}

fn main() {}
