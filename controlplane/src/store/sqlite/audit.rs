//! Tables `audit_logs`, `audit_seals`, `audit_heads` and `audit_personal`: what every change writes to, and the chain over it.
//!
//! With one writer the order of the rows is the order of the commits, so what is not sealed yet is what comes after the newest seal.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use agentapi_shared::OrgId;
use agentapi_shared::audit::Seal;
use agentapi_shared::audit::entry::time_text;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, params, params_from_iter};
use tokio::sync::watch;
use tracing::warn;

use super::{Sqlite, hosts, organizations, rows};
use crate::capability::Capability;
use crate::clock;
use crate::store::records::{
    AuditEntry, AuditFilter, AuditHead, AuditPage, AuditPosition, DEFAULT_ORG, SealedRecord, TenantContext,
};
use crate::store::{Answer, AuditStore, OutboxSeen, SEALED_MIN, Scope, StoreError};

/// Records sealed in one transaction: the thread is free again after a millisecond or two.
const BATCH_MAX: u32 = 128;
const _: () = assert!(BATCH_MAX as u64 >= SEALED_MIN);

impl AuditStore for Sqlite {
    fn audit(&self, scope: Scope, entry: AuditEntry, seen: OutboxSeen) -> Answer<'_, ()> {
        self.call(move |tx| {
            let org = org_of(tx, &scope, &entry)?;
            insert(tx, &scope, org, &entry)?;
            hosts::record_seen(tx, seen)
        })
    }

    fn audit_written(&self) -> watch::Receiver<u64> {
        self.audit_written.clone()
    }

    fn seal_audit(&self, max: u32) -> Answer<'_, u64> {
        self.call(move |tx| seal(tx, max.min(BATCH_MAX)))
    }

    fn audit_heads(&self) -> Answer<'_, Vec<AuditHead>> {
        self.call(|tx| {
            let found = tx
                .prepare_cached("SELECT org_id, seq, hash FROM audit_heads ORDER BY org_id")?
                .query_map([], |row| Ok(AuditHead { org: rows::id(row, "org_id")?, seal: read_seal(row)? }))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(found)
        })
    }

    fn audit_records(&self, tenant: TenantContext, filter: AuditFilter) -> Answer<'_, AuditPage> {
        self.call(move |tx| {
            // Who reads is looked up here, as the other store does: whoever may not has no trail.
            let role = organizations::role_of(tx, tenant.org, tenant.user)?;
            if !role.is_some_and(|role| role.has(Capability::AuditRead)) {
                return Ok(AuditPage::default());
            }
            page(tx, tenant.org, &filter)
        })
    }
}

/// The newest record's place in the table.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT COALESCE(MAX(n), 0) FROM audit_logs")?.query_row([], |row| row.get(0))
}

/// Tells whoever waits that there are new records.
pub(super) fn tell(connection: &Connection, written: &watch::Sender<u64>) {
    match newest(connection) {
        Ok(newest) => {
            written.send_if_modified(|known| std::mem::replace(known, newest) != newest);
        }
        // The next write asks again.
        Err(error) => warn!(%error, "cannot see whether there are new audit records"),
    }
}

/// The organisation an entry belongs to when no changed row says it: the caller's, or the session's, or the default one. A host speaks for
/// sessions that are placed on it.
fn org_of(tx: &Transaction<'_>, scope: &Scope, entry: &AuditEntry) -> Result<OrgId, StoreError> {
    if let Some(org) = entry.org {
        return Ok(org);
    }
    let host = match scope {
        Scope::Tenant(tenant) => return Ok(tenant.org),
        Scope::Host(host) => Some(host.to_string()),
        Scope::System => None,
    };
    // A host that is somebody's speaks in no chain but theirs; one that is shared in that of the machine's own organisation.
    let own = match &host {
        Some(host) => tx
            .prepare_cached("SELECT org_id FROM hosts WHERE id = ?1")?
            .query_row([host], |row| rows::id_option::<OrgId>(row, "org_id"))
            .optional()?
            .flatten(),
        None => None,
    };
    let own = own.unwrap_or(DEFAULT_ORG);
    let Some(session) = entry.session else { return Ok(own) };
    let found = tx
        .prepare_cached("SELECT org_id FROM user_sessions WHERE id = ?1 AND (?2 IS NULL OR host_id = ?2)")?
        .query_row(params![session.to_string(), host], |row| rows::id::<OrgId>(row, "org_id"))
        .optional()?;
    Ok(found.unwrap_or(own))
}

/// Writes an audit entry. One whose id is there was delivered twice, and stays as it was.
pub(super) fn insert(tx: &Transaction<'_>, scope: &Scope, org: OrgId, entry: &AuditEntry) -> Result<(), StoreError> {
    let org = entry.org.unwrap_or(org);
    let (kind, actor) = entry.actor(scope);
    let inserted = tx
        .prepare_cached(
            "INSERT INTO audit_logs (id, org_id, created_by, created_at, actor_kind, action, channel, session_id, host_id, entry)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            entry.id.to_string(),
            org.to_string(),
            actor,
            time_text(entry.at),
            kind.as_str(),
            entry.action,
            entry.channel,
            entry.session.map(|id| id.to_string()),
            entry.host.map(|id| id.to_string()),
            entry.text(org, scope),
        ])?;
    if let Some(personal) = entry.personal.text().filter(|_| inserted > 0) {
        // Of whoever was erased nothing comes back, such as with the end of a terminal that they had open.
        tx.prepare_cached(
            "INSERT INTO audit_personal (n, org_id, created_by, data) SELECT ?1, ?2, ?3, ?4
             WHERE NOT EXISTS (SELECT 1 FROM users WHERE id = ?3 AND subject = 'erased:' || id)",
        )?
        .execute(params![tx.last_insert_rowid(), org.to_string(), actor, personal])?;
    }
    Ok(())
}

/// Gives the oldest records without a place their place.
pub(super) fn seal(tx: &Transaction<'_>, max: u32) -> Result<u64, StoreError> {
    let waiting = tx
        .prepare_cached(
            "SELECT n, id, org_id, entry FROM audit_logs WHERE n > (SELECT COALESCE(MAX(n), 0) FROM audit_seals) ORDER BY n LIMIT ?1",
        )?
        .query_map([max], |row| {
            Ok((row.get::<_, i64>("n")?, rows::id(row, "id")?, rows::id::<OrgId>(row, "org_id")?, row.get::<_, String>("entry")?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let at = time_text(clock::now());
    let mut heads: HashMap<OrgId, Seal> = HashMap::new();
    let mut insert =
        tx.prepare_cached("INSERT INTO audit_seals (n, org_id, created_at, seq, hash) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (n, id, org, text) in &waiting {
        let head = match heads.entry(*org) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(head(tx, *org)?),
        };
        *head = head.next(*org, *id, text);
        insert.execute(params![n, org.to_string(), at, head.number, head.hash.to_string()])?;
    }
    for (org, head) in heads {
        tx.prepare_cached(
            "INSERT INTO audit_heads (org_id, seq, hash) VALUES (?1, ?2, ?3)
             ON CONFLICT (org_id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
        )?
        .execute(params![org.to_string(), head.number, head.hash.to_string()])?;
    }
    Ok(waiting.len() as u64)
}

fn head(tx: &Transaction<'_>, org: OrgId) -> Result<Seal, StoreError> {
    let found = tx
        .prepare_cached("SELECT seq, hash FROM audit_heads WHERE org_id = ?1")?
        .query_row([org.to_string()], read_seal)
        .optional()?;
    Ok(found.unwrap_or(Seal::START))
}

/// A page of the trail of an organisation, or of the platform.
pub(super) fn page(tx: &Transaction<'_>, org: OrgId, filter: &AuditFilter) -> Result<AuditPage, StoreError> {
    let head = head(tx, org)?.number;
    let Some(window) = filter.position.window(head) else { return Ok(AuditPage::default()) };
    let order = match filter.position {
        AuditPosition::Before(_) => "DESC",
        AuditPosition::After(_) => "ASC",
    };
    let mut sql = "SELECT s.seq AS seq, s.hash AS hash, a.id AS id, a.entry AS entry, p.data AS personal
                   FROM audit_seals AS s JOIN audit_logs AS a ON a.n = s.n LEFT JOIN audit_personal AS p ON p.n = s.n
                   WHERE s.org_id = ? AND s.seq BETWEEN ? AND ?"
        .to_owned();
    let mut values: Vec<Box<dyn ToSql>> =
        vec![Box::new(org.to_string()), Box::new(*window.start()), Box::new(*window.end())];
    let conditions = [
        (" AND a.created_by = ?", filter.actor.clone()),
        (" AND a.action = ?", filter.action.clone()),
        (" AND a.session_id = ?", filter.session.map(|id| id.to_string())),
        (" AND a.host_id = ?", filter.host.map(|id| id.to_string())),
        (" AND a.created_at >= ?", filter.from.map(time_text)),
        (" AND a.created_at < ?", filter.until.map(time_text)),
    ];
    for (condition, value) in conditions {
        if let Some(value) = value {
            sql.push_str(condition);
            values.push(Box::new(value));
        }
    }
    sql.push_str(&format!(" ORDER BY s.seq {order} LIMIT ?"));
    values.push(Box::new(filter.limit));
    let records: Vec<SealedRecord> =
        tx.prepare_cached(&sql)?.query_map(params_from_iter(values), read)?.collect::<rusqlite::Result<_>>()?;
    Ok(AuditPage::of(records, filter, &window, head))
}

fn read_seal(row: &Row<'_>) -> rusqlite::Result<Seal> {
    Ok(Seal { number: row.get("seq")?, hash: rows::word(row, "hash")? })
}

fn read(row: &Row<'_>) -> rusqlite::Result<SealedRecord> {
    Ok(SealedRecord {
        seal: read_seal(row)?,
        id: rows::id(row, "id")?,
        entry: row.get("entry")?,
        personal: row.get("personal")?,
    })
}
