//! An import of an attribute that `#[nats_service]` reads by itself is no ambiguity, from a glob nor by name.
mod by_glob {
    use nats_service::*;

    #[nats_service]
    pub trait Profiles {
        #[kv_store(bucket = "profiles", key = "<id>")]
        async fn save(&self, id: String) -> String;
    }
}

mod by_name {
    #[expect(unused_imports, reason = "`#[nats_service]` has read it before its name is looked for")]
    use nats_service::kv_store;
    use nats_service::nats_service;

    #[nats_service]
    pub trait Profiles {
        #[kv_store(bucket = "profiles", key = "<id>")]
        async fn save(&self, id: String) -> String;
    }
}

mod by_path {
    #[nats_service::nats_service]
    pub trait Profiles {
        #[nats_service::kv_store(bucket = "profiles", key = "<id>")]
        async fn save(&self, id: String) -> String;
    }
}

fn main() {
    let _ = by_glob::ProfilesContract::SPEC;
    let _ = by_name::ProfilesContract::SPEC;
    let _ = by_path::ProfilesContract::SPEC;
}
