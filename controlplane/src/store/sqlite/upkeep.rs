//! What the operator does on this machine while a server runs: sessions of people who were shut out are to be told to their hosts. Leases
//! of viewers whose end nobody told are removed with a record of it; what else is over goes with the next of its kind.

use std::time::Duration;

use agentapi_shared::SessionId;
use time::OffsetDateTime;

use super::{Sqlite, rows, viewers};
use crate::store::{Answer, UpkeepStore};

/// Twice within the minute after which nobody who was shut out has anything.
const EVERY: Duration = Duration::from_secs(25);

impl UpkeepStore for Sqlite {
    fn upkeep_every(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn end_deleted_users(&self) -> Answer<'_, Vec<SessionId>> {
        self.call(|tx| {
            let found = tx
                .prepare_cached(
                    "SELECT s.id FROM users AS u CROSS JOIN user_sessions AS s ON s.created_by = u.id
                     WHERE u.disabled_at IS NOT NULL AND s.state NOT IN ('exited', 'failed', 'lost') AND s.desired = 'stop'",
                )?
                .query_map([], |row| rows::id(row, "id"))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(found)
        })
    }

    fn sweep(&self, now: OffsetDateTime) -> Answer<'_, u64> {
        self.call(move |tx| viewers::sweep(tx, now))
    }
}
