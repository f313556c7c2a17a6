//! Table `api_keys`.

use agentapi_shared::api::API_KEYS_PER_NAME_MAX;
use agentapi_shared::audit::entry::time_text;
use agentapi_shared::{ApiKeyId, EventId};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde_json::json;

use super::organizations::{record, require};
use super::{Sqlite, rows};
use crate::capability::Capability;
use crate::store::records::{ApiKeyRecord, AuditEntry, MadeByKey, NewApiKey, TenantContext};
use crate::store::{Answer, ApiKeyStore, StoreError};

impl ApiKeyStore for Sqlite {
    fn api_keys(&self, tenant: TenantContext) -> Answer<'_, Vec<ApiKeyRecord>> {
        self.call(move |tx| list(tx, &tenant))
    }

    fn create_api_key(&self, tenant: TenantContext, new: NewApiKey, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| create(tx, &tenant, &new, &audit))
    }

    fn revoke_api_key(
        &self,
        tenant: TenantContext,
        id: ApiKeyId,
        made: MadeByKey,
        audit: AuditEntry,
    ) -> Answer<'_, ()> {
        self.call(move |tx| revoke(tx, &tenant, id, made, &audit))
    }
}

/// Refuses what is made with a key that ended meanwhile: what is made with one ends with it.
pub(super) fn require_live(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    key: Option<ApiKeyId>,
) -> Result<(), StoreError> {
    let Some(key) = key else { return Ok(()) };
    // Of whatever organisation: a login that was made with it may be in another one of its user's by now.
    let sql = "SELECT 1 FROM api_keys WHERE id = ?1 AND user_id = ?2 AND revoked_at IS NULL";
    let found = tx.query_row(sql, [key.to_string(), tenant.user.to_string()], |_| Ok(()));
    found.optional()?.ok_or(StoreError::Unauthenticated)
}

/// Whose keys a caller reaches: the id of one person, or none for everybody's.
fn reach(tx: &Transaction<'_>, tenant: &TenantContext) -> Result<Option<String>, StoreError> {
    let role = require(tx, tenant, Capability::OrganizationView)?;
    match (role.has(Capability::ApiKeyManage), role.has(Capability::ApiKeyCreate)) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(tenant.user.to_string())),
        (false, false) => Err(StoreError::Forbidden),
    }
}

fn list(tx: &Transaction<'_>, tenant: &TenantContext) -> Result<Vec<ApiKeyRecord>, StoreError> {
    let of = reach(tx, tenant)?;
    let found = tx
        .prepare_cached("SELECT * FROM api_keys WHERE org_id = ?1 AND (?2 IS NULL OR user_id = ?2) ORDER BY id DESC")?
        .query_map(params![tenant.org.to_string(), of], read)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(found)
}

fn create(tx: &Transaction<'_>, tenant: &TenantContext, new: &NewApiKey, audit: &AuditEntry) -> Result<(), StoreError> {
    require(tx, tenant, Capability::ApiKeyCreate)?;
    require_live(tx, tenant, new.made_by)?;
    let (org, user, at) = (tenant.org.to_string(), tenant.user.to_string(), time_text(audit.at));
    let live: u32 = tx.query_row(
        "SELECT COUNT(*) FROM api_keys WHERE org_id = ?1 AND user_id = ?2 AND name = ?3 AND revoked_at IS NULL
         AND (expires_at IS NULL OR expires_at > ?4)",
        params![org, user, new.name, at],
        |row| row.get(0),
    )?;
    if live >= API_KEYS_PER_NAME_MAX {
        return Err(StoreError::Refused("api_key_rotation".to_owned()));
    }
    tx.execute(
        "INSERT INTO api_keys (id, org_id, user_id, created_by, created_at, name, prefix, hash, scopes, expires_at, made_by_key)
         VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            new.id.to_string(),
            org,
            user,
            at,
            new.name,
            new.prefix,
            new.hash,
            rows::json_text(&new.scopes)?,
            new.expires_at.map(time_text),
            new.made_by.map(|key| key.to_string()),
        ],
    )?;
    record(tx, tenant, tenant.org, audit)
}

fn revoke(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    id: ApiKeyId,
    made: MadeByKey,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    let of = reach(tx, tenant)?;
    let changed = tx.execute(
        "UPDATE api_keys SET revoked_at = ?4
         WHERE org_id = ?1 AND id = ?2 AND (?3 IS NULL OR user_id = ?3) AND revoked_at IS NULL",
        params![tenant.org.to_string(), id.to_string(), of, time_text(audit.at)],
    )?;
    if changed == 0 {
        return Err(StoreError::NotFound);
    }
    if made == MadeByKey::Ends {
        end_made_by(tx, tenant, id, audit)?;
    }
    record(tx, tenant, tenant.org, audit)
}

/// The keys that were made with a key and with those, and itself.
const MADE: &str = "WITH RECURSIVE made (id) AS (
    SELECT ?1 UNION SELECT k.id FROM api_keys AS k JOIN made AS m ON k.made_by_key = m.id)";

/// Ends what was made with a key; each further key with a record.
fn end_made_by(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    id: ApiKeyId,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    for table in ["browser_sessions", "login_codes", "host_enrolments"] {
        let sql = format!("{MADE} DELETE FROM {table} WHERE made_by_key IN (SELECT id FROM made)");
        tx.execute(&sql, [id.to_string()])?;
    }
    let ended = tx
        .prepare(&format!(
            "{MADE} UPDATE api_keys SET revoked_at = ?2 WHERE id IN (SELECT id FROM made) AND revoked_at IS NULL RETURNING id"
        ))?
        .query_map([id.to_string(), time_text(audit.at)], |row| rows::id::<ApiKeyId>(row, "id"))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for key in ended {
        let detail = json!({ "api_key": key, "made_by": id });
        let entry = AuditEntry { id: EventId::generate(), action: "api_key.revoke".into(), detail, ..audit.clone() };
        record(tx, tenant, tenant.org, &entry)?;
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<ApiKeyRecord> {
    Ok(ApiKeyRecord {
        id: rows::id(row, "id")?,
        user: rows::id(row, "user_id")?,
        name: row.get("name")?,
        prefix: row.get("prefix")?,
        scopes: rows::json(row, "scopes")?,
        created_at: rows::time(row, "created_at")?,
        expires_at: rows::time_option(row, "expires_at")?,
        revoked_at: rows::time_option(row, "revoked_at")?,
        last_used_at: rows::time_option(row, "last_used_at")?,
        made_by: rows::id_option(row, "made_by_key")?,
    })
}
