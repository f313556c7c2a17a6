//! Logins with an issuer behind them: `browser_sessions`, and `login_refreshes`, where everything was encrypted before it came here.

use agentapi_shared::audit::entry::time_text;
use rusqlite::{OptionalExtension, Transaction, params};
use time::OffsetDateTime;

use super::{Sqlite, audit, credentials};
use crate::store::records::{NewLogin, RefreshTaken, Sealed, TenantContext, UserHolder};
use crate::store::{Answer, LoginStore, Scope, StoreError};

impl LoginStore for Sqlite {
    fn begin_login(&self, login: NewLogin) -> Answer<'_, Option<UserHolder>> {
        self.call(move |tx| begin(tx, &login))
    }

    fn take_refresh(&self, login: String, now: OffsetDateTime, until: OffsetDateTime) -> Answer<'_, RefreshTaken> {
        self.call(move |tx| take(tx, &login, now, until))
    }

    fn put_refresh(&self, login: String, until: OffsetDateTime, refresh: Option<Sealed>) -> Answer<'_, ()> {
        self.call(move |tx| put(tx, &login, until, refresh.as_ref()))
    }
}

/// Makes a login, in the organisation that is named or the first that the user came to.
fn begin(tx: &Transaction<'_>, login: &NewLogin) -> Result<Option<UserHolder>, StoreError> {
    let Some(holder) = credentials::member(tx, login.user, login.org)? else { return Ok(None) };
    let (org, user, at) = (holder.org.to_string(), holder.user.to_string(), time_text(login.audit.at));
    tx.execute(
        "INSERT INTO browser_sessions (hash, org_id, created_by, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![login.cookie, org, user, at, time_text(login.expires_at)],
    )?;
    if let Some(refresh) = &login.refresh {
        tx.execute(
            "INSERT INTO login_refreshes (hash, org_id, created_by, created_at, key_id, ciphertext) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![login.cookie, org, user, at, refresh.key_id, refresh.ciphertext],
        )?;
    }
    let scope = Scope::Tenant(TenantContext { org: holder.org, user: holder.user, role: holder.role, token: None });
    audit::insert(tx, &scope, holder.org, &login.audit)?;
    Ok(Some(holder))
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
