//! Tables `host_enrolments` and `host_credentials`: how a machine becomes a host, how its credential changes, and how it ends.

use agentapi_shared::audit::entry::time_text;
use agentapi_shared::{HostId, OrgId, UserId};
use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::organizations::{record, require, role_of};
use super::{Sqlite, api_keys, audit, rows};
use crate::capability::Capability;
use crate::store::records::{AuditEntry, DEFAULT_ORG, NewEnrolment, Rotation, TenantContext};
use crate::store::{Answer, EnrolmentStore, Scope, StoreError};

/// A credential that was given to a host, and that the host did not use within this time, is removed at its next rotation.
const UNCONFIRMED_MAX: Duration = Duration::minutes(10);

impl EnrolmentStore for Sqlite {
    fn create_host_enrolment(&self, tenant: TenantContext, new: NewEnrolment, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| create(tx, &tenant, &new, &audit))
    }

    fn redeem_host_enrolment(
        &self,
        token_hash: String,
        host: HostId,
        credential_hash: String,
        at: OffsetDateTime,
    ) -> Answer<'_, Option<OrgId>> {
        self.call(move |tx| redeem(tx, &token_hash, host, &credential_hash, at))
    }

    fn rotate_host_credential(&self, host: HostId, rotation: Rotation, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| rotate(tx, host, &rotation, &audit))
    }

    fn confirm_host_credential(&self, credential_hash: String, others_end_at: OffsetDateTime) -> Answer<'_, ()> {
        self.call(move |tx| confirm(tx, &credential_hash, others_end_at))
    }

    fn revoke_host(&self, tenant: TenantContext, host: HostId, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| revoke(tx, &tenant, host, &audit))
    }
}

fn create(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    new: &NewEnrolment,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    require(tx, tenant, Capability::HostManage)?;
    api_keys::require_live(tx, tenant, new.made_by)?;
    let at = time_text(audit.at);
    tx.execute("DELETE FROM host_enrolments WHERE expires_at <= ?1", [&at])?;
    tx.execute(
        "INSERT INTO host_enrolments (hash, org_id, created_by, created_at, name, expires_at, made_by_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            new.hash,
            tenant.org.to_string(),
            tenant.user.to_string(),
            at,
            new.name,
            time_text(new.expires_at),
            new.made_by.map(|key| key.to_string()),
        ],
    )?;
    record(tx, tenant, tenant.org, audit)
}

fn redeem(
    tx: &Transaction<'_>,
    token_hash: &str,
    host: HostId,
    credential_hash: &str,
    at: OffsetDateTime,
) -> Result<Option<OrgId>, StoreError> {
    let at_text = time_text(at);
    let found = tx
        .query_row(
            "DELETE FROM host_enrolments WHERE hash = ?1 RETURNING org_id, created_by, name, expires_at > ?2 AS good",
            [token_hash, &at_text],
            |row| {
                let org: OrgId = rows::id(row, "org_id")?;
                let made: (String, String) = (row.get("created_by")?, row.get("name")?);
                Ok((org, made, row.get::<_, bool>("good")?))
            },
        )
        .optional()?;
    let Some((org, (by, name), true)) = found else { return Ok(None) };
    // Good as long as whoever made it may still manage hosts.
    let Ok(maker) = by.parse::<UserId>() else { return Ok(None) };
    if !role_of(tx, org, maker)?.is_some_and(|role| role.has(Capability::HostManage)) {
        return Ok(None);
    }
    tx.execute(
        "INSERT INTO hosts (id, org_id, created_by, created_at, name) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![host.to_string(), org.to_string(), by, at_text, name],
    )?;
    insert_credential(tx, credential_hash, host, Some(org), &by, &at_text)?;
    // Whoever comes with a token does not know the organisation, so the record is made here.
    let entry = AuditEntry::fact(org, "enrolment", "host.enrol", json!({ "by": by }));
    let entry = AuditEntry { at, host: Some(host), ..entry };
    audit::insert(tx, &Scope::System, org, &entry)?;
    Ok(Some(org))
}

/// Makes a credential good for a host.
pub(super) fn insert_credential(
    tx: &Transaction<'_>,
    hash: &str,
    host: HostId,
    org: Option<OrgId>,
    by: &str,
    at: &str,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT OR IGNORE INTO host_credentials (hash, host_id, org_id, created_by, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![hash, host.to_string(), org.map(|org| org.to_string()), by, at],
    )?;
    Ok(())
}

fn rotate(tx: &Transaction<'_>, host: HostId, rotation: &Rotation, audit: &AuditEntry) -> Result<(), StoreError> {
    let sql = "SELECT org_id FROM hosts WHERE id = ?1 AND revoked_at IS NULL";
    let org: Option<OrgId> = tx.query_row(sql, [host.to_string()], |row| rows::id_option(row, "org_id"))?;
    // Whoever shows it has it.
    confirm(tx, &rotation.shown, rotation.others_end_at)?;
    // One that was not confirmed for so long was lost on its way. With the new one two wait at most, however often a host asks.
    tx.execute(
        "DELETE FROM host_credentials WHERE host_id = ?1 AND pending AND (created_at < ?2 OR rowid <> (
             SELECT MAX(newest.rowid) FROM host_credentials AS newest WHERE newest.host_id = ?1 AND newest.pending))",
        [host.to_string(), time_text(audit.at - UNCONFIRMED_MAX)],
    )?;
    insert_credential(tx, &rotation.new, host, org, &host.to_string(), &time_text(audit.at))?;
    tx.execute("UPDATE host_credentials SET pending = 1 WHERE hash = ?1", [&rotation.new])?;
    audit::insert(tx, &Scope::Host(host), org.unwrap_or(DEFAULT_ORG), audit)
}

/// If this one was not used before: it is good, whatever another one said of it, and those of the host end that were made before it. One that
/// was made after it may be on its way. Rows are numbered as they are made, which no clock that is set back changes.
fn confirm(tx: &Transaction<'_>, hash: &str, others_end_at: OffsetDateTime) -> Result<(), StoreError> {
    let shown: Option<(String, i64)> = tx
        .prepare_cached(
            "UPDATE host_credentials SET pending = 0, revoked_at = NULL
             WHERE hash = ?1 AND pending AND (revoked_at IS NULL OR revoked_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
             RETURNING host_id, rowid AS number",
        )?
        .query_row([hash], |row| Ok((row.get("host_id")?, row.get("number")?)))
        .optional()?;
    if let Some((host, number)) = shown {
        tx.execute(
            "UPDATE host_credentials SET revoked_at = MIN(COALESCE(revoked_at, ?3), ?3) WHERE host_id = ?1 AND rowid < ?2",
            params![host, number, time_text(others_end_at)],
        )?;
    }
    Ok(())
}

fn revoke(tx: &Transaction<'_>, tenant: &TenantContext, host: HostId, audit: &AuditEntry) -> Result<(), StoreError> {
    require(tx, tenant, Capability::HostManage)?;
    let changed = tx.execute(
        "UPDATE hosts SET revoked_at = ?3 WHERE id = ?1 AND org_id = ?2 AND revoked_at IS NULL",
        [host.to_string(), tenant.org.to_string(), time_text(audit.at)],
    )?;
    if changed == 0 {
        return Err(StoreError::NotFound);
    }
    record(tx, tenant, tenant.org, audit)
}
