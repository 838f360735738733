use nats_service::nats_service;

#[nats_service]
pub trait Profiles {
    async fn rename(&self, id: u64, name: String) -> bool;
}

fn call(profiles: ProfilesClient) {
    let _ = profiles.rename("7", "Ada");
    let _ = profiles.rename(&7, 'A');
}

fn main() {}
