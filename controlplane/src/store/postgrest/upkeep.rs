//! What others do in the database: users whom Supabase Auth has deleted, and rows that are over.

use std::time::Duration;

use agentapi_shared::SessionId;
use time::OffsetDateTime;

use super::Postgrest;
use crate::store::{Answer, UpkeepStore};

/// Twice within the minute after which nobody who was deleted has anything.
const EVERY: Duration = Duration::from_secs(25);

impl UpkeepStore for Postgrest {
    fn upkeep_every(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn end_deleted_users(&self) -> Answer<'_, Vec<SessionId>> {
        Box::pin(async move {
            // Of nobody: whom operators shut out is to be told all the same.
            let issuer = self.client.issuer().unwrap_or_default();
            self.as_service().end_deleted_users(&issuer).await
        })
    }

    fn sweep(&self, now: OffsetDateTime) -> Answer<'_, u64> {
        Box::pin(async move { self.as_service().sweep(now).await })
    }
}
