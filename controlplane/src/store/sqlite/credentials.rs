//! What callers show: `api_keys`, `host_credentials`, `browser_sessions` and `login_codes`. Only hashes of secrets come here.

use agentapi_shared::audit::entry::time_text;
use agentapi_shared::{OrgId, UserId};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use time::{Duration, OffsetDateTime};

use agentapi_shared::ApiKeyId;

use super::{Sqlite, api_keys, audit, enrolments, rows};
use crate::store::records::{
    AuditEntry, BrowserSession, Holder, KeyFacts, LOCAL_ADMIN, LoginHolder, NewLoginCode, NewcomerHolder, Sight,
    TenantContext, TokenHolder, UserHolder,
};
use crate::store::{Answer, CredentialStore, Scope, StoreError};

/// A login at an issuer that was not shown for so long is a new one when it comes back.
const SEEN_KEPT: Duration = Duration::days(90);

impl CredentialStore for Sqlite {
    fn register_token(&self, hash: String, holder: TokenHolder, at: OffsetDateTime) -> Answer<'_, ()> {
        self.call(move |tx| register_token(tx, &hash, holder, at))
    }

    fn token(&self, hash: String) -> Answer<'_, Option<Holder>> {
        Box::pin(async move {
            let Some((holder, stale)) = self.readers.read(|tx| token(tx, &hash))? else { return Ok(None) };
            if stale {
                self.call(move |tx| note_use(tx, &hash)).await?;
            }
            Ok(Some(holder))
        })
    }

    fn member(&self, org: OrgId, user: UserId) -> Answer<'_, Option<UserHolder>> {
        self.read(move |tx| member(tx, user, Some(org)))
    }

    fn create_login_code(&self, tenant: TenantContext, new: NewLoginCode, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| create_login_code(tx, &tenant, &new, &audit))
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
        self.read(move |tx| browser_session(tx, &hash, now))
    }

    fn see_session(&self, sight: Sight) -> Answer<'_, bool> {
        self.call(move |tx| see(tx, &sight))
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
    let at = time_text(at);
    match holder {
        TokenHolder::User { org, user } => {
            tx.execute(
                "INSERT OR IGNORE INTO api_keys (id, org_id, user_id, created_by, created_at, name, prefix, hash)
                 VALUES (?1, ?2, ?3, ?3, ?4, 'local', '', ?5)",
                params![ApiKeyId::generate().to_string(), org.to_string(), user.to_string(), at, hash],
            )?;
        }
        TokenHolder::Host(host) => {
            let sql = "SELECT org_id FROM hosts WHERE id = ?1";
            let org = tx.query_row(sql, [host.to_string()], |row| rows::id_option(row, "org_id"))?;
            enrolments::insert_credential(tx, hash, host, org, &LOCAL_ADMIN.to_string(), &at)?;
        }
    }
    Ok(())
}

/// Whose a token is, and whether it is time to note that it was used; none if it is good no longer.
fn token(tx: &Connection, hash: &str) -> Result<Option<(Holder, bool)>, StoreError> {
    let user = tx
        .prepare_cached(&format!(
            "SELECT {HOLDER}, k.id AS key_id, k.scopes, k.expires_at,
                    k.last_used_at IS NULL OR k.last_used_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 minute') AS stale
             FROM api_keys AS k JOIN memberships AS m ON m.org_id = k.org_id AND m.user_id = k.user_id {JOINS}
             WHERE k.hash = ?1 AND k.revoked_at IS NULL
               AND (k.expires_at IS NULL OR k.expires_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
        ))?
        .query_row([hash], |row| {
            let key = KeyFacts {
                id: rows::id(row, "key_id")?,
                scopes: rows::json(row, "scopes")?,
                expires_at: rows::time_option(row, "expires_at")?,
            };
            Ok((UserHolder { key: Some(key), ..read_user(row)? }, row.get::<_, bool>("stale")?))
        })
        .optional()?;
    // Asked first: people and their programs ask all the time, hosts when they connect.
    if let Some((holder, stale)) = user {
        return Ok(Some((Holder::User(holder), stale)));
    }
    let host = tx
        .prepare_cached(
            "SELECT c.host_id FROM host_credentials AS c JOIN hosts AS h ON h.id = c.host_id AND h.revoked_at IS NULL
             WHERE c.hash = ?1 AND (c.revoked_at IS NULL OR c.revoked_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
        )?
        .query_row([hash], |row| rows::id(row, "host_id"))
        .optional()?;
    Ok(host.map(|host| (Holder::Host(host), false)))
}

/// Notes when a key was used, to the minute: a write for each request would be too many.
fn note_use(tx: &Transaction<'_>, hash: &str) -> Result<(), StoreError> {
    // Of many requests at once the first notes it.
    tx.execute(
        "UPDATE api_keys SET last_used_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE hash = ?1 AND revoked_at IS NULL
         AND (last_used_at IS NULL OR last_used_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 minute'))",
        [hash],
    )?;
    Ok(())
}

/// What is read of a member, and where it is.
const HOLDER: &str =
    "u.id AS user_id, o.id AS org_id, COALESCE(u.name, u.email, '') AS name, o.name AS organization, m.role AS role";
const JOINS: &str =
    "JOIN users AS u ON u.id = m.user_id AND u.disabled_at IS NULL JOIN organizations AS o ON o.id = m.org_id";

/// Stores a code for one login.
pub(super) fn create_login_code(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    new: &NewLoginCode,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    let now = time_text(audit.at);
    api_keys::require_live(tx, tenant, new.made_by)?;
    tx.execute("DELETE FROM login_codes WHERE expires_at <= ?1", [&now])?;
    tx.execute("DELETE FROM browser_sessions WHERE expires_at <= ?1", [&now])?;
    tx.execute(
        "INSERT INTO login_codes (hash, org_id, created_by, created_at, expires_at, made_by_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            new.hash,
            tenant.org.to_string(),
            tenant.user.to_string(),
            now,
            time_text(new.expires_at),
            new.made_by.map(|key| key.to_string()),
        ],
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
    let now = time_text(audit.at);
    let found = tx
        .query_row(
            &format!(
                "SELECT {HOLDER}, c.made_by_key FROM login_codes AS c
                 JOIN memberships AS m ON m.org_id = c.org_id AND m.user_id = c.created_by {JOINS}
                 WHERE c.hash = ?1 AND c.expires_at > ?2"
            ),
            [code_hash, &now],
            |row| Ok((read_user(row)?, row.get::<_, Option<String>>("made_by_key")?)),
        )
        .optional()?;
    let Some((holder, key)) = found else { return Ok(None) };
    tx.execute("DELETE FROM login_codes WHERE hash = ?1", [code_hash])?;
    tx.execute(
        "INSERT INTO browser_sessions (hash, org_id, created_by, created_at, expires_at, made_by_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![cookie_hash, holder.org.to_string(), holder.user.to_string(), now, time_text(expires_at), key],
    )?;
    let scope = Scope::Tenant(TenantContext { org: holder.org, user: holder.user, role: holder.role, token: None });
    audit::insert(tx, &scope, holder.org, audit)?;
    Ok(Some(holder))
}

/// A browser session that is not over.
pub(super) fn browser_session(
    tx: &Connection,
    hash: &str,
    now: OffsetDateTime,
) -> Result<Option<BrowserSession>, StoreError> {
    let now = time_text(now);
    let read = |row: &Row<'_>, holder| {
        Ok(BrowserSession {
            holder,
            expires_at: rows::time(row, "expires_at")?,
            made_by: rows::id_option(row, "made_by_key")?,
        })
    };
    let of_member = tx
        .prepare_cached(&format!(
            "SELECT {HOLDER}, b.expires_at, b.made_by_key FROM browser_sessions AS b
             JOIN memberships AS m ON m.org_id = b.org_id AND m.user_id = b.created_by {JOINS}
             WHERE b.hash = ?1 AND b.expires_at > ?2"
        ))?
        .query_row([hash, &now], |row| read(row, LoginHolder::Member(read_user(row)?)))
        .optional()?;
    if of_member.is_some() {
        return Ok(of_member);
    }
    let of_newcomer = tx
        .prepare_cached(
            "SELECT u.id AS user_id, COALESCE(u.name, u.email, '') AS name, b.expires_at, b.made_by_key FROM browser_sessions AS b
             JOIN users AS u ON u.id = b.created_by AND u.disabled_at IS NULL
             WHERE b.hash = ?1 AND b.org_id IS NULL AND b.expires_at > ?2",
        )?
        .query_row([hash, &now], |row| read(row, LoginHolder::Newcomer(read_newcomer(row)?)))
        .optional()?;
    Ok(of_newcomer)
}

/// Records a login that was never seen. Those that were not shown for long go with the next new one.
fn see(tx: &Transaction<'_>, sight: &Sight) -> Result<bool, StoreError> {
    let Sight { hash, tenant, audit } = sight;
    let (org, user, at) = (tenant.org.to_string(), tenant.user.to_string(), audit.at);
    let new = tx.execute(
        "INSERT OR IGNORE INTO seen_sessions (hash, org_id, created_by, seen_at) VALUES (?1, ?2, ?3, ?4)",
        [hash, &org, &user, &time_text(at)],
    )?;
    if new > 0 {
        audit::insert(tx, &Scope::Tenant(tenant.clone()), tenant.org, audit)?;
        tx.execute("DELETE FROM seen_sessions WHERE seen_at < ?1", [time_text(at - SEEN_KEPT)])?;
        return Ok(true);
    }
    let refresh = "UPDATE seen_sessions SET seen_at = ?2 WHERE hash = ?1 AND seen_at < ?3";
    tx.execute(refresh, [hash, &time_text(at), &time_text(at - Duration::DAY)])?;
    Ok(false)
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

/// A user in an organisation of theirs: the one that is named, or the first they came to.
pub(super) fn member(tx: &Connection, user: UserId, org: Option<OrgId>) -> Result<Option<UserHolder>, StoreError> {
    let found = tx
        .prepare_cached(&format!(
            "SELECT {HOLDER} FROM memberships AS m {JOINS}
             WHERE m.user_id = ?1 AND (?2 IS NULL OR m.org_id = ?2) ORDER BY m.created_at, m.org_id LIMIT 1"
        ))?
        .query_row(params![user.to_string(), org.map(|org| org.to_string())], read_user)
        .optional()?;
    Ok(found)
}

/// Somebody who is not shut out, and in no organisation as far as this is asked; none if there is no such user.
pub(super) fn newcomer(tx: &Transaction<'_>, user: UserId) -> Result<Option<NewcomerHolder>, StoreError> {
    let sql =
        "SELECT id AS user_id, COALESCE(name, email, '') AS name FROM users WHERE id = ?1 AND disabled_at IS NULL";
    Ok(tx.query_row(sql, [user.to_string()], read_newcomer).optional()?)
}

fn read_newcomer(row: &Row<'_>) -> rusqlite::Result<NewcomerHolder> {
    Ok(NewcomerHolder { user: rows::id(row, "user_id")?, name: row.get("name")? })
}

fn read_user(row: &Row<'_>) -> rusqlite::Result<UserHolder> {
    Ok(UserHolder {
        user: rows::id(row, "user_id")?,
        org: rows::id(row, "org_id")?,
        name: row.get("name")?,
        organization: row.get("organization")?,
        role: rows::word(row, "role")?,
        key: None,
        token: None,
    })
}
