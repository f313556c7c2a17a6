//! Table `api_keys`.

use agentapi_shared::ApiKeyId;
use agentapi_shared::api::API_KEYS_PER_NAME_MAX;
use agentapi_shared::audit::entry::time_text;
use rusqlite::{Row, Transaction, params};

use super::organizations::{record, require};
use super::{Sqlite, rows};
use crate::capability::Capability;
use crate::store::records::{ApiKeyRecord, AuditEntry, NewApiKey, TenantContext};
use crate::store::{Answer, ApiKeyStore, StoreError};

impl ApiKeyStore for Sqlite {
    fn api_keys(&self, tenant: TenantContext) -> Answer<'_, Vec<ApiKeyRecord>> {
        self.call(move |tx| list(tx, &tenant))
    }

    fn create_api_key(&self, tenant: TenantContext, new: NewApiKey, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| create(tx, &tenant, &new, &audit))
    }

    fn revoke_api_key(&self, tenant: TenantContext, id: ApiKeyId, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| revoke(tx, &tenant, id, &audit))
    }
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
        "INSERT INTO api_keys (id, org_id, user_id, created_by, created_at, name, prefix, hash, scopes, expires_at)
         VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
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
        ],
    )?;
    record(tx, tenant, tenant.org, audit)
}

fn revoke(tx: &Transaction<'_>, tenant: &TenantContext, id: ApiKeyId, audit: &AuditEntry) -> Result<(), StoreError> {
    let of = reach(tx, tenant)?;
    let changed = tx.execute(
        "UPDATE api_keys SET revoked_at = ?4
         WHERE org_id = ?1 AND id = ?2 AND (?3 IS NULL OR user_id = ?3) AND revoked_at IS NULL",
        params![tenant.org.to_string(), id.to_string(), of, time_text(audit.at)],
    )?;
    if changed == 0 {
        return Err(StoreError::NotFound);
    }
    record(tx, tenant, tenant.org, audit)
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
    })
}
