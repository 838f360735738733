//! The service itself: plain `async fn`s, and nothing of NATS.

use crate::contract::{
    DeleteProfile, Profile, ProfileError, Profiles, Report, ReportRequest, SaveProfile,
};
use std::time::{SystemTime, UNIX_EPOCH};

const LARGEST_REPORT: usize = 256 << 20;

/// It has no state of its own: what it answers is what is kept.
pub struct ProfileService;

impl Profiles for ProfileService {
    async fn save_profile(&self, request: SaveProfile) -> Result<Profile, ProfileError> {
        let SaveProfile { id, name, email } = request;
        if !email.contains('@') {
            return Err(ProfileError::InvalidEmail { email });
        }
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Profile {
            id,
            name,
            email,
            saved_at: since.as_secs(),
        })
    }

    async fn generate_report(&self, request: ReportRequest) -> Result<Report, ProfileError> {
        let ReportRequest { id, bytes } = request;
        if bytes > LARGEST_REPORT {
            return Err(ProfileError::ReportTooLarge {
                most: LARGEST_REPORT,
            });
        }
        let mut text = String::with_capacity(bytes + 80);
        let mut line = 0_u64;
        while text.len() < bytes {
            line += 1;
            text.push_str(&format!(
                "{line:>8}  what there is to say of {id}, line by line\n"
            ));
        }
        text.truncate(bytes);
        Ok(Report { id, text })
    }

    async fn delete_profile(&self, _request: DeleteProfile) -> Result<(), ProfileError> {
        // The entry goes because the method says `#[kv_evict(..)]`.
        Ok(())
    }
}
