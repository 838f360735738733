//! Keywords, renames, and names that meet those of generated code.
#![deny(warnings)]

use nats_service::nats_service;

#[nats_service(name = "naming", subject = "v1.naming", description = "Names", queue_group = "workers")]
pub trait Naming {
    async fn r#type(&self, r#match: String, service: u8, request: u8, keys: u8) -> String;

    #[endpoint(rename = "create", queue_group = false, timeout = "1m", metadata(slow = "yes"))]
    #[kv_store(bucket = "made", key = "<a.type>.<b>.<c..>", write = "never")]
    async fn new(&self, a: Thing, b: u8, c: String) -> u8;

    #[kv_store(bucket = "made", key = "one.<request.type>.<response>", write = "before_reply")]
    async fn stored(&self, request: Thing) -> u8;

    #[kv_store(bucket = "made", key = "two.{value.0}.{other.0}.x")]
    async fn tuples(&self, value: (u8, u8), other: (u8, u8)) -> u8;

    #[object_store(bucket = "all", key = "all", shared_key = true)]
    async fn shared(&self, answer: u8) -> u8;

    async fn stores_of(&self, core: u8, js: u8) -> u8;
}

#[nats_service::message]
pub struct Thing {
    r#type: String,
}

pub async fn call(client: NamingClient) -> Result<(), Box<dyn std::error::Error>> {
    let _ = client.r#type("x".to_string(), 1, 2, 3);
    let _ = client.create(Thing { r#type: String::new() }, 1, String::new());
    let stores = client.stores()?;
    let _ = stores.create().at("type", 1, "b.c")?;
    let _ = stores.stored().at("type", 7)?;
    let _ = stores.tuples().at(1, 2)?;
    let _ = stores.shared().at()?;
    Ok(())
}

fn main() {
    let spec = NamingContract::SPEC;
    assert_eq!((spec.name, spec.description), ("naming", "Names"));
    let names: Vec<_> = spec.methods.iter().map(|m| (m.name, m.subject, m.queue_group)).collect();
    assert_eq!(names[0], ("type", "v1.naming.type", Some("workers")));
    assert_eq!(names[1], ("create", "v1.naming.create", None));
    assert_eq!(spec.methods[1].metadata, [("slow", "yes")]);
    assert_eq!(spec.methods[1].timeout, std::time::Duration::from_secs(60));
}
