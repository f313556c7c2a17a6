//! Table `hosts`.

use agentapi_shared::HostId;
use agentapi_shared::audit::entry::time_text;
use rusqlite::{Row, Transaction, params};
use time::OffsetDateTime;

use super::organizations::role_of;
use super::{Sqlite, audit, rows};
use crate::capability::Capability;
use crate::store::records::{AuditEntry, DEFAULT_ORG, HostRecord, TenantContext};
use crate::store::{Answer, HostStore, OutboxSeen, Scope, StoreError};

impl HostStore for Sqlite {
    fn hosts(&self, tenant: TenantContext) -> Answer<'_, Vec<HostRecord>> {
        self.call(move |tx| list(tx, &tenant))
    }

    fn host(&self, id: HostId) -> Answer<'_, HostRecord> {
        self.call(move |tx| get(tx, id))
    }

    fn host_connected(&self, host: HostRecord, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| connected(tx, &host, &audit))
    }

    fn host_seen(&self, id: HostId, at: OffsetDateTime) -> Answer<'_, ()> {
        self.call(move |tx| seen_at(tx, id, at))
    }

    fn outbox_seen(&self, id: HostId) -> Answer<'_, u64> {
        self.call(move |tx| outbox_seen(tx, id))
    }
}

const SELECT: &str = "SELECT id, org_id, name, version, facts, last_seen_at, (SELECT COUNT(*) FROM user_sessions AS s
    WHERE s.host_id = hosts.id AND s.state NOT IN ('exited', 'failed', 'lost')) AS sessions_running FROM hosts";

/// Every host that a tenant may use.
pub(super) fn list(tx: &Transaction<'_>, tenant: &TenantContext) -> Result<Vec<HostRecord>, StoreError> {
    if role_of(tx, tenant.org, tenant.user)?.is_none_or(|role| !role.has(Capability::HostView)) {
        return Ok(Vec::new());
    }
    let found = tx
        .prepare_cached(&format!("{SELECT} WHERE (org_id IS NULL OR org_id = ?1) AND revoked_at IS NULL ORDER BY id"))?
        .query_map([tenant.org.to_string()], read)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(found)
}

/// One host.
pub(super) fn get(tx: &Transaction<'_>, id: HostId) -> Result<HostRecord, StoreError> {
    Ok(tx
        .prepare_cached(&format!("{SELECT} WHERE id = ?1 AND revoked_at IS NULL"))?
        .query_row([id.to_string()], read)?)
}

/// What a host said of itself.
pub(super) fn connected(tx: &Transaction<'_>, host: &HostRecord, audit: &AuditEntry) -> Result<(), StoreError> {
    let changed = tx.execute(
        "UPDATE hosts SET version = ?2, facts = ?3, last_seen_at = ?4 WHERE id = ?1 AND revoked_at IS NULL",
        params![
            host.id.to_string(),
            host.version,
            host.facts.as_ref().map(rows::json_text).transpose()?,
            host.last_seen_at.map(time_text),
        ],
    )?;
    if changed == 0 {
        return Err(StoreError::NotFound);
    }
    audit::insert(tx, &Scope::Host(host.id), host.org.unwrap_or(DEFAULT_ORG), audit)
}

/// When a host was last heard of.
pub(super) fn seen_at(tx: &Transaction<'_>, id: HostId, at: OffsetDateTime) -> Result<(), StoreError> {
    tx.execute("UPDATE hosts SET last_seen_at = ?2 WHERE id = ?1", params![id.to_string(), time_text(at)])?;
    Ok(())
}

/// The number up to which a host's outbox is stored.
pub(super) fn outbox_seen(tx: &Transaction<'_>, id: HostId) -> Result<u64, StoreError> {
    Ok(tx.query_row("SELECT outbox_seq FROM hosts WHERE id = ?1", [id.to_string()], |row| row.get(0))?)
}

/// Records that an item of a host's outbox is stored.
pub(super) fn record_seen(tx: &Transaction<'_>, seen: OutboxSeen) -> Result<(), StoreError> {
    if let Some((host, seq)) = seen {
        tx.prepare_cached("UPDATE hosts SET outbox_seq = MAX(outbox_seq, ?2) WHERE id = ?1")?
            .execute(params![host.to_string(), seq])?;
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<HostRecord> {
    Ok(HostRecord {
        id: rows::id(row, "id")?,
        org: rows::id_option(row, "org_id")?,
        name: row.get("name")?,
        version: row.get("version")?,
        facts: rows::json_option(row, "facts")?,
        last_seen_at: rows::time_option(row, "last_seen_at")?,
        sessions_running: row.get("sessions_running")?,
    })
}
