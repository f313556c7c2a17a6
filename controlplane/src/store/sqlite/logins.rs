//! Logins with an issuer behind them: `browser_sessions`, and `login_refreshes`, where everything was encrypted before it came here.

use agentapi_shared::UserId;
use agentapi_shared::audit::PLATFORM;
use agentapi_shared::audit::entry::time_text;
use rusqlite::{OptionalExtension, Transaction, params};
use time::OffsetDateTime;

use super::{Sqlite, audit, credentials};
use crate::capability::Role;
use crate::store::records::{AuditEntry, LoginHolder, NewLogin, RefreshTaken, Sealed, TenantContext};
use crate::store::{Answer, LoginStore, Scope, StoreError};

impl LoginStore for Sqlite {
    fn begin_login(&self, login: NewLogin) -> Answer<'_, Option<LoginHolder>> {
        self.call(move |tx| begin(tx, &login))
    }

    fn end_newcomer_login(&self, user: UserId, login: String, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| end_newcomer(tx, user, &login, &audit))
    }

    fn take_refresh(&self, login: String, now: OffsetDateTime, until: OffsetDateTime) -> Answer<'_, RefreshTaken> {
        self.call(move |tx| take(tx, &login, now, until))
    }

    fn put_refresh(&self, login: String, until: OffsetDateTime, refresh: Option<Sealed>) -> Answer<'_, ()> {
        self.call(move |tx| put(tx, &login, until, refresh.as_ref()))
    }
}

/// In whose name a newcomer's records are written, in the platform's chain.
fn newcomer_scope(user: UserId) -> Scope {
    Scope::Tenant(TenantContext { org: PLATFORM, user, role: Role::Viewer, token: None })
}

/// Makes a login, in the organisation that is named or the first that the user came to; else in none, unless one is named.
fn begin(tx: &Transaction<'_>, login: &NewLogin) -> Result<Option<LoginHolder>, StoreError> {
    let (holder, scope, org) = match (credentials::member(tx, login.user, login.org)?, login.org) {
        (Some(holder), _) => {
            let (org, scope) = (holder.org, Scope::Tenant(holder.tenant()));
            (LoginHolder::Member(holder), scope, Some(org))
        }
        (None, Some(_)) => return Ok(None),
        (None, None) => {
            let Some(newcomer) = credentials::newcomer(tx, login.user)? else { return Ok(None) };
            let own = [login.user.to_string()];
            tx.execute("DELETE FROM browser_sessions WHERE created_by = ?1 AND org_id IS NULL", own)?;
            (LoginHolder::Newcomer(newcomer), newcomer_scope(login.user), None)
        }
    };
    let (org_text, user, at) = (org.map(|org| org.to_string()), login.user.to_string(), time_text(login.audit.at));
    tx.execute(
        "INSERT INTO browser_sessions (hash, org_id, created_by, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![login.cookie, org_text, user, at, time_text(login.expires_at)],
    )?;
    if let Some(refresh) = &login.refresh {
        tx.execute(
            "INSERT INTO login_refreshes (hash, org_id, created_by, created_at, key_id, ciphertext) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![login.cookie, org_text, user, at, refresh.key_id, refresh.ciphertext],
        )?;
    }
    audit::insert(tx, &scope, org.unwrap_or(PLATFORM), &login.audit)?;
    Ok(Some(holder))
}

fn end_newcomer(tx: &Transaction<'_>, user: UserId, login: &str, audit: &AuditEntry) -> Result<(), StoreError> {
    let sql = "DELETE FROM browser_sessions WHERE hash = ?1 AND created_by = ?2 AND org_id IS NULL";
    if tx.execute(sql, [login, &user.to_string()])? > 0 {
        audit::insert(tx, &newcomer_scope(user), PLATFORM, audit)?;
    }
    Ok(())
}

/// Takes it, unless somebody has it.
fn take(
    tx: &Transaction<'_>,
    login: &str,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<RefreshTaken, StoreError> {
    let found = tx
        .query_row(
            "SELECT r.key_id, r.ciphertext, r.taken_until > ?2 FROM login_refreshes AS r JOIN browser_sessions AS b ON b.hash = r.hash
             WHERE r.hash = ?1 AND b.expires_at > ?2",
            params![login, time_text(now)],
            |row| Ok((Sealed { key_id: row.get(0)?, ciphertext: row.get(1)? }, row.get::<_, Option<bool>>(2)?)),
        )
        .optional()?;
    match found {
        None => Ok(RefreshTaken::Gone),
        Some((_, Some(true))) => Ok(RefreshTaken::Busy),
        Some((sealed, _)) => {
            let taken = params![login, time_text(until)];
            tx.execute("UPDATE login_refreshes SET taken_until = ?2 WHERE hash = ?1", taken)?;
            Ok(RefreshTaken::Taken(sealed))
        }
    }
}

/// Ends a taking.
fn put(tx: &Transaction<'_>, login: &str, until: OffsetDateTime, refresh: Option<&Sealed>) -> Result<(), StoreError> {
    let put = tx.execute(
        "UPDATE login_refreshes SET taken_until = NULL, key_id = COALESCE(?3, key_id), ciphertext = COALESCE(?4, ciphertext)
         WHERE hash = ?1 AND taken_until = ?2",
        params![
            login,
            time_text(until),
            refresh.map(|sealed| &sealed.key_id),
            refresh.map(|sealed| &sealed.ciphertext)
        ],
    )?;
    // Of a login that ended meanwhile there is nothing to keep; somebody else's taking is not ours to end.
    if put == 1 { Ok(()) } else { Err(StoreError::Stale) }
}
