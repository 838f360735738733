//! What the service and its callers share. In a project of your own this is a crate of its own, or a module of both.

use nats_service::{ServiceError, nats_service};
use serde::{Deserialize, Serialize};

/// User profiles, kept in JetStream.
#[nats_service(version = "1.0.0")]
pub trait Profiles {
    /// Saves a profile. The answer is kept under `user.<id>`, with its last five versions.
    #[kv_store(bucket = "user_profiles", key = "user.<id>", history = 5)]
    async fn save_profile(&self, request: SaveProfile) -> Result<Profile, ProfileError>;

    /// Renders a report, and keeps it as an object. A large one travels by reference: the caller notices nothing.
    #[endpoint(timeout = "1m")]
    #[object_store(bucket = "reports", key = "report.<id>")]
    async fn generate_report(&self, request: ReportRequest) -> Result<Report, ProfileError>;

    /// Removes a profile, and its entry.
    #[kv_evict(bucket = "user_profiles", key = "user.<id>")]
    async fn delete_profile(&self, request: DeleteProfile) -> Result<(), ProfileError>;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaveProfile {
    pub id: String,
    pub name: String,
    pub email: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub id: String,
    pub name: String,
    pub email: String,
    /// Seconds since 1970.
    pub saved_at: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportRequest {
    pub id: String,
    /// About how large the report is to be.
    pub bytes: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub id: String,
    pub text: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteProfile {
    pub id: String,
}

/// What the service fails with; the caller matches on it, fields and all.
#[derive(Debug, PartialEq, ServiceError)]
pub enum ProfileError {
    #[service_error(code = InvalidArgument, message = "`{email}` is no e-mail address")]
    InvalidEmail { email: String },
    #[service_error(code = OutOfRange, message = "a report has at most {most} bytes")]
    ReportTooLarge { most: usize },
}
