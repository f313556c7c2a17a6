//! How values become columns and back, and the audit table that every change writes to.

use std::str::FromStr;

use agentapi_shared::OrgId;
use rusqlite::types::Type;
use rusqlite::{Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::store::records::{AuditEntry, DEFAULT_ORG};
use crate::store::{Scope, StoreError};

/// A time as a column.
pub(super) fn time_text(at: OffsetDateTime) -> Result<String, StoreError> {
    // Seconds and microseconds always written, so that text order is time order.
    at.to_offset(time::UtcOffset::UTC)
        .format(time::macros::format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
        ))
        .map_err(|error| StoreError::Unavailable(Box::new(error)))
}

/// A value as a JSON column.
pub(super) fn json_text<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unavailable(Box::new(error)))
}

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

/// A column that holds an id.
pub(super) fn id<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str()?.parse().map_err(malformed)
}

/// A column that holds one of some words.
pub(super) fn word<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    id(row, column)
}

/// A column that may hold an id.
pub(super) fn id_option<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str_or_null()?.map(|text| text.parse().map_err(malformed)).transpose()
}

/// A JSON column.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(malformed)
}

/// A JSON column that may be null.
pub(super) fn json_option<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    row.get_ref(column)?.as_str_or_null()?.map(|text| serde_json::from_str(text).map_err(malformed)).transpose()
}

/// A time column.
pub(super) fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<OffsetDateTime> {
    OffsetDateTime::parse(row.get_ref(column)?.as_str()?, &Rfc3339).map_err(malformed)
}

/// A time column that may be null.
pub(super) fn time_option(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<OffsetDateTime>> {
    row.get_ref(column)?
        .as_str_or_null()?
        .map(|text| OffsetDateTime::parse(text, &Rfc3339).map_err(malformed))
        .transpose()
}

/// The organisation an entry belongs to when no changed row says it: the caller's, or the session's, or the default one.
pub(super) fn audit_org(tx: &Transaction<'_>, scope: &Scope, entry: &AuditEntry) -> Result<OrgId, StoreError> {
    if let Scope::Tenant(tenant) = scope {
        return Ok(tenant.org);
    }
    let Some(session) = entry.session else { return Ok(DEFAULT_ORG) };
    let found = tx.query_row("SELECT org_id FROM user_sessions WHERE id = ?1", [session.to_string()], |row| {
        id::<OrgId>(row, "org_id")
    });
    match found {
        Ok(org) => Ok(org),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(DEFAULT_ORG),
        Err(other) => Err(other.into()),
    }
}

/// Writes an audit entry. One whose id is there was delivered twice, and stays as it was.
pub(super) fn insert_audit(
    tx: &Transaction<'_>,
    scope: &Scope,
    org: OrgId,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    let (kind, actor) = match scope {
        Scope::Tenant(tenant) => ("user", tenant.user.to_string()),
        Scope::Host(host) => ("host", host.to_string()),
        Scope::System => ("system", "system".to_owned()),
    };
    tx.prepare_cached(
        "INSERT OR IGNORE INTO audit_logs (id, org_id, created_by, created_at, actor_kind, action, channel, session_id, host_id, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        entry.id.to_string(),
        org.to_string(),
        actor,
        time_text(entry.at)?,
        kind,
        entry.action,
        entry.channel,
        entry.session.map(|id| id.to_string()),
        entry.host.map(|id| id.to_string()),
        entry.detail.to_string(),
    ])?;
    Ok(())
}
