use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    #[kv_cache(bucket = "a", key = "user.<id>", ttl = "10m", cache_errors = "5s")]
    async fn one(&self, id: String) -> String;

    #[kv_cache(bucket = "b", key = "user.<id>", ttl = "10m", cache_errors(Notfound = "5s", NotFound, Internal = 5))]
    async fn two(&self, id: String) -> String;

    #[kv_cache(bucket = "c", key = "user.<id>", ttl = "10m", cache_errors(NotFound = "5s", NotFound = "1s"))]
    async fn three(&self, id: String) -> String;
}

fn main() {}
