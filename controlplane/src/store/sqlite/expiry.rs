//! Which sessions' time is over by the settings of their organisations. Only organisations with such a setting are looked at.

use agentapi_shared::SessionId;
use agentapi_shared::api::{EXPIRY_SECONDS_MAX, OrganizationSettings, RETENTION_DAYS_MAX};
use agentapi_shared::audit::entry::time_text;
use rusqlite::{Row, Transaction, params};
use time::{Duration, OffsetDateTime};

use super::{organizations, rows};
use crate::store::StoreError;
use crate::store::records::{Expiry, Overdue};

/// Ended sessions purged at once: the rest is due at the next look, which follows at once.
const PURGED_AT_ONCE_MAX: u32 = 100;

pub(super) fn look(tx: &Transaction<'_>, now: OffsetDateTime) -> Result<Expiry, StoreError> {
    let with_settings = tx
        .prepare_cached("SELECT id, settings FROM organizations WHERE settings <> '{}'")?
        .query_map([], |row| Ok((row.get::<_, String>("id")?, organizations::read_settings(row)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut found = Expiry::default();
    for (org, settings) in with_settings {
        living(tx, &org, &settings, now, &mut found)?;
        ended(tx, &org, &settings, now, &mut found)?;
    }
    Ok(found)
}

impl Expiry {
    fn look_again(&mut self, at: OffsetDateTime) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

/// Sessions that run and are to run on.
fn living(
    tx: &Transaction<'_>,
    org: &str,
    settings: &OrganizationSettings,
    now: OffsetDateTime,
    found: &mut Expiry,
) -> Result<(), StoreError> {
    let idle = settings.session_idle_seconds_max.map(seconds);
    let age = settings.session_age_seconds_max.map(seconds);
    let Some(shortest) = idle.into_iter().chain(age).min() else { return Ok(()) };
    // Whatever begins from here on is not due before.
    found.look_again(now + shortest);
    // Who had to do with a session last is in the audit trail; what its host says is nobody's doing. Whoever watches has a lease to come.
    let sql = "SELECT s.id, (SELECT p.created_at FROM spawns AS p WHERE p.session_id = s.id ORDER BY p.number DESC LIMIT 1) AS began,
                      (SELECT a.created_at FROM audit_logs AS a WHERE a.session_id = s.id AND a.actor_kind = 'user'
                       ORDER BY a.id DESC LIMIT 1) AS touched,
                      (SELECT MAX(v.leased_until) FROM viewers AS v WHERE v.session_id = s.id) AS watched
               FROM user_sessions AS s INDEXED BY user_sessions_living
               WHERE s.org_id = ?1 AND s.state NOT IN ('exited', 'failed', 'lost') AND s.desired = 'run'";
    let mut statement = tx.prepare_cached(sql)?;
    let read = |row: &Row<'_>| {
        let had_to_do = [rows::time_option(row, "touched")?, rows::time_option(row, "watched")?];
        Ok((id(row)?, rows::time(row, "began")?, had_to_do))
    };
    for row in statement.query_map([org], read)? {
        let (session, began, had_to_do) = row?;
        let since = had_to_do.into_iter().flatten().fold(began, OffsetDateTime::max);
        let ends = [(idle, since, Overdue::Idle), (age, began, Overdue::Age)];
        let first = ends.into_iter().filter_map(|(max, since, why)| Some((since + max?, why))).min_by_key(|end| end.0);
        match first {
            Some((end, why)) if end <= now => found.due.push((session, why)),
            Some((end, _)) => found.look_again(end),
            None => {}
        }
    }
    Ok(())
}

/// Sessions that ended and are kept no longer. Ids grow with time, so the oldest come first, and those behind a young one are young.
fn ended(
    tx: &Transaction<'_>,
    org: &str,
    settings: &OrganizationSettings,
    now: OffsetDateTime,
    found: &mut Expiry,
) -> Result<(), StoreError> {
    let Some(days) = settings.session_retention_days else { return Ok(()) };
    let kept = Duration::days(days.min(RETENTION_DAYS_MAX).into());
    let before = time_text(now - kept);
    let sql = "SELECT s.id FROM user_sessions AS s INDEXED BY user_sessions_by_org
               WHERE s.org_id = ?1 AND s.created_at <= ?2 AND s.state IN ('exited', 'failed', 'lost') AND s.purging = 0
                 AND (SELECT COALESCE(p.ended_at, p.created_at) FROM spawns AS p WHERE p.session_id = s.id
                      ORDER BY p.number DESC LIMIT 1) <= ?2
               ORDER BY s.id LIMIT ?3";
    let sessions = tx
        .prepare_cached(sql)?
        .query_map(params![org, before, PURGED_AT_ONCE_MAX], id)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    found.look_again(now + kept.min(Duration::HOUR));
    found.due.extend(sessions.into_iter().map(|session| (session, Overdue::Retention)));
    Ok(())
}

fn id(row: &Row<'_>) -> rusqlite::Result<SessionId> {
    rows::id(row, "id")
}

fn seconds(count: u64) -> Duration {
    // Settings that came around the API may say anything.
    Duration::seconds(i64::try_from(count.min(EXPIRY_SECONDS_MAX)).unwrap_or(i64::MAX))
}
