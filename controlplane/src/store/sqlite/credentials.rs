//! Tables `api_tokens`, `browser_sessions` and `login_codes`. Only hashes of secrets come here.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use time::OffsetDateTime;

use super::{Sqlite, audit, rows};
use crate::store::records::{
    AuditEntry, BrowserSession, DEFAULT_ORG, Holder, LOCAL_ADMIN, TenantContext, TokenHolder, UserHolder,
};
use crate::store::{Answer, CredentialStore, Scope, StoreError};

impl CredentialStore for Sqlite {
    fn register_token(&self, hash: String, holder: TokenHolder, at: OffsetDateTime) -> Answer<'_, ()> {
        self.call(move |tx| register_token(tx, &hash, holder, at))
    }

    fn token(&self, hash: String) -> Answer<'_, Option<Holder>> {
        self.call(move |tx| token(tx, &hash))
    }

    fn create_login_code(
        &self,
        tenant: TenantContext,
        hash: String,
        expires_at: OffsetDateTime,
        audit: AuditEntry,
    ) -> Answer<'_, ()> {
        self.call(move |tx| create_login_code(tx, &tenant, &hash, expires_at, &audit))
    }

    fn redeem_login_code(
        &self,
        code_hash: String,
        cookie_hash: String,
        expires_at: OffsetDateTime,
        audit: AuditEntry,
    ) -> Answer<'_, Option<UserHolder>> {
        self.call(move |tx| redeem_login_code(tx, &code_hash, &cookie_hash, expires_at, &audit))
    }

    fn browser_session(&self, hash: String, now: OffsetDateTime) -> Answer<'_, Option<BrowserSession>> {
        self.call(move |tx| browser_session(tx, &hash, now))
    }

    fn end_browser_session(&self, tenant: TenantContext, hash: String, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| end_browser_session(tx, &tenant, &hash, &audit))
    }
}

/// Makes a token good for its holder.
pub(super) fn register_token(
    tx: &Transaction<'_>,
    hash: &str,
    holder: TokenHolder,
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    let (kind, org, user, host) = match holder {
        TokenHolder::User { org, user } => ("user", org, Some(user), None),
        TokenHolder::Host(host) => ("host", DEFAULT_ORG, None, Some(host)),
    };
    tx.execute(
        "INSERT OR IGNORE INTO api_tokens (hash, org_id, created_by, created_at, kind, user_id, host_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            hash,
            org.to_string(),
            user.unwrap_or(LOCAL_ADMIN).to_string(),
            rows::time_text(at)?,
            kind,
            user.map(|id| id.to_string()),
            host.map(|id| id.to_string()),
        ],
    )?;
    Ok(())
}

/// Whose a token is.
pub(super) fn token(tx: &Transaction<'_>, hash: &str) -> Result<Option<Holder>, StoreError> {
    let host = tx
        .prepare_cached("SELECT host_id FROM api_tokens WHERE hash = ?1 AND kind = 'host'")?
        .query_row([hash], |row| rows::id(row, "host_id"))
        .optional()?;
    if let Some(host) = host {
        return Ok(Some(Holder::Host(host)));
    }
    let user = tx
        .prepare_cached(
            "SELECT u.id AS user_id, u.org_id AS org_id, u.name AS name, o.name AS organization, u.role AS role
             FROM api_tokens AS t JOIN users AS u ON u.id = t.user_id JOIN organizations AS o ON o.id = u.org_id
             WHERE t.hash = ?1 AND t.kind = 'user'",
        )?
        .query_row([hash], read_user)
        .optional()?;
    Ok(user.map(Holder::User))
}

/// Stores a code for one login.
pub(super) fn create_login_code(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    hash: &str,
    expires_at: OffsetDateTime,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    let now = rows::time_text(audit.at)?;
    tx.execute("DELETE FROM login_codes WHERE expires_at <= ?1", [&now])?;
    tx.execute("DELETE FROM browser_sessions WHERE expires_at <= ?1", [&now])?;
    tx.execute(
        "INSERT INTO login_codes (hash, org_id, created_by, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![hash, tenant.org.to_string(), tenant.user.to_string(), now, rows::time_text(expires_at)?],
    )?;
    audit::insert(tx, &Scope::Tenant(tenant.clone()), tenant.org, audit)
}

/// Takes a code and makes a browser session of it.
pub(super) fn redeem_login_code(
    tx: &Transaction<'_>,
    code_hash: &str,
    cookie_hash: &str,
    expires_at: OffsetDateTime,
    audit: &AuditEntry,
) -> Result<Option<UserHolder>, StoreError> {
    let now = rows::time_text(audit.at)?;
    let holder = tx
        .query_row(
            "SELECT u.id AS user_id, u.org_id AS org_id, u.name AS name, o.name AS organization, u.role AS role
             FROM login_codes AS c JOIN users AS u ON u.id = c.created_by JOIN organizations AS o ON o.id = u.org_id
             WHERE c.hash = ?1 AND c.expires_at > ?2",
            [code_hash, &now],
            read_user,
        )
        .optional()?;
    let Some(holder) = holder else { return Ok(None) };
    tx.execute("DELETE FROM login_codes WHERE hash = ?1", [code_hash])?;
    tx.execute(
        "INSERT INTO browser_sessions (hash, org_id, created_by, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![cookie_hash, holder.org.to_string(), holder.user.to_string(), now, rows::time_text(expires_at)?],
    )?;
    let scope = Scope::Tenant(TenantContext { org: holder.org, user: holder.user, role: holder.role, token: None });
    audit::insert(tx, &scope, holder.org, audit)?;
    Ok(Some(holder))
}

/// A browser session that is not over.
pub(super) fn browser_session(
    tx: &Transaction<'_>,
    hash: &str,
    now: OffsetDateTime,
) -> Result<Option<BrowserSession>, StoreError> {
    let found = tx
        .prepare_cached(
            "SELECT u.id AS user_id, u.org_id AS org_id, u.name AS name, o.name AS organization, u.role AS role,
                    b.expires_at AS expires_at
             FROM browser_sessions AS b JOIN users AS u ON u.id = b.created_by JOIN organizations AS o ON o.id = u.org_id
             WHERE b.hash = ?1 AND b.expires_at > ?2",
        )?
        .query_row([hash, &rows::time_text(now)?], |row| {
            Ok(BrowserSession { holder: read_user(row)?, expires_at: rows::time(row, "expires_at")? })
        })
        .optional()?;
    Ok(found)
}

/// Ends a browser session.
pub(super) fn end_browser_session(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    hash: &str,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    let user = tenant.user.to_string();
    tx.execute("DELETE FROM browser_sessions WHERE hash = ?1 AND created_by = ?2", [hash, &user])?;
    audit::insert(tx, &Scope::Tenant(tenant.clone()), tenant.org, audit)
}

fn read_user(row: &Row<'_>) -> rusqlite::Result<UserHolder> {
    Ok(UserHolder {
        user: rows::id(row, "user_id")?,
        org: rows::id(row, "org_id")?,
        name: row.get("name")?,
        organization: row.get("organization")?,
        role: rows::word(row, "role")?,
    })
}
