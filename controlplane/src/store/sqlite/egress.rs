//! Table `egress_decisions`.

use agentapi_shared::audit::entry::time_text;
use agentapi_shared::egress::{EgressDecision, EgressVerdict};
use agentapi_shared::{HostId, SessionId};
use rusqlite::{Row, ToSql, Transaction, params, params_from_iter};

use super::{Sqlite, hosts, rows, sessions};
use crate::store::records::EgressFilter;
use crate::store::{Answer, EgressStore, OutboxSeen, Scope, StoreError};

impl EgressStore for Sqlite {
    fn record_egress(&self, host: HostId, decision: EgressDecision, seen: OutboxSeen) -> Answer<'_, ()> {
        self.call(move |tx| {
            record(tx, host, &decision)?;
            hosts::record_seen(tx, seen)
        })
    }

    fn egress(&self, scope: Scope, session: SessionId, filter: EgressFilter) -> Answer<'_, Vec<EgressDecision>> {
        self.call(move |tx| list(tx, &scope, session, &filter))
    }
}

/// Decisions kept of one session, some 400 bytes each with their indexes: what runs inside makes as many as it likes, and sessions are many.
/// Overflow: its oldest are removed, at one in [`INSERTS_PER_REMOVAL`], so there are some hundred more at times.
const KEPT_PER_SESSION_MAX: u32 = 10_000;

/// Finding the oldest walks over all that are kept, which is too much for each. Left to chance: a count for each session would have to be kept
/// somewhere, and a count over all of them can miss one that comes at the wrong moments.
const INSERTS_PER_REMOVAL: u32 = 100;

/// Stores a decision of a host about a session that is placed on it. One of another session has no place here: a host speaks for its own only.
pub(super) fn record(tx: &Transaction<'_>, host: HostId, decision: &EgressDecision) -> Result<(), StoreError> {
    if insert(tx, host, decision)? && rand::random_ratio(1, INSERTS_PER_REMOVAL) {
        remove_beyond(tx, decision.session, KEPT_PER_SESSION_MAX)?;
    }
    Ok(())
}

/// Whether it was new, and had a place.
pub(super) fn insert(tx: &Transaction<'_>, host: HostId, decision: &EgressDecision) -> Result<bool, StoreError> {
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let inserted = tx
        .prepare_cached(
        "INSERT OR IGNORE INTO egress_decisions (id, org_id, created_by, created_at, session_id, spawn, host, port, address, verdict, rule,
                                                 bytes_up, bytes_down, duration_ms, times)
         SELECT ?1, org_id, ?2, ?3, id, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14 FROM user_sessions WHERE id = ?4 AND host_id = ?2",
    )?
    .execute(params![
        decision.id.to_string(),
        host.to_string(),
        time_text(decision.at),
        decision.session.to_string(),
        decision.spawn,
        decision.host,
        decision.port,
        decision.address,
        decision.verdict.as_str(),
        decision.rule,
        bytes(decision.bytes_up),
        bytes(decision.bytes_down),
        bytes(decision.duration_ms),
        bytes(decision.times),
    ])?;
    Ok(inserted > 0)
}

/// Removes the oldest of a session beyond so many.
pub(super) fn remove_beyond(tx: &Transaction<'_>, session: SessionId, most: u32) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM egress_decisions WHERE session_id = ?1
         AND id <= (SELECT id FROM egress_decisions WHERE session_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![session.to_string(), most])?;
    Ok(())
}

/// A page of a session's decisions, newest first.
pub(super) fn list(
    tx: &Transaction<'_>,
    scope: &Scope,
    session: SessionId,
    filter: &EgressFilter,
) -> Result<Vec<EgressDecision>, StoreError> {
    // Whoever may not see the session finds nothing, not an empty page.
    sessions::get(tx, scope, session)?;
    let mut sql = "SELECT * FROM egress_decisions WHERE session_id = ?".to_owned();
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(session.to_string())];
    if let Some(verdict) = filter.verdict {
        sql.push_str(" AND verdict = ?");
        values.push(Box::new(verdict.as_str()));
    }
    if let Some(before) = filter.before {
        sql.push_str(" AND id < ?");
        values.push(Box::new(before.to_string()));
    }
    sql.push_str(" ORDER BY id DESC LIMIT ?");
    values.push(Box::new(filter.limit));
    let found = tx.prepare_cached(&sql)?.query_map(params_from_iter(values), read)?.collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

fn verdict(row: &Row<'_>) -> rusqlite::Result<EgressVerdict> {
    let word = row.get_ref("verdict")?.as_str()?;
    word.parse().map_err(|_| rusqlite::Error::InvalidParameterName(format!("verdict {word}")))
}

fn read(row: &Row<'_>) -> rusqlite::Result<EgressDecision> {
    let count = |column: &str| row.get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(EgressDecision {
        id: rows::id(row, "id")?,
        session: rows::id(row, "session_id")?,
        spawn: row.get("spawn")?,
        at: rows::time(row, "created_at")?,
        host: row.get("host")?,
        port: row.get("port")?,
        address: row.get("address")?,
        verdict: verdict(row)?,
        rule: row.get("rule")?,
        bytes_up: count("bytes_up")?,
        bytes_down: count("bytes_down")?,
        duration_ms: count("duration_ms")?,
        times: count("times")?,
    })
}
