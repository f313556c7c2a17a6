//! Table `idempotency_keys`. A key belongs to one caller and one route and is kept for a day.

use agentapi_shared::audit::entry::time_text;
use rusqlite::{OptionalExtension, Transaction, params};
use time::{Duration, OffsetDateTime};

use super::Sqlite;
use crate::store::records::{IdempotencyKey, Replay, TenantContext};
use crate::store::{Answer, IdempotencyStore, StoreError};

impl IdempotencyStore for Sqlite {
    fn begin_idempotent(&self, tenant: TenantContext, key: IdempotencyKey, at: OffsetDateTime) -> Answer<'_, Replay> {
        self.call(move |tx| begin(tx, &tenant, &key, at))
    }

    fn finish_idempotent(
        &self,
        tenant: TenantContext,
        key: IdempotencyKey,
        status: u16,
        body: String,
    ) -> Answer<'_, ()> {
        self.call(move |tx| finish(tx, &tenant, &key, status, &body))
    }

    fn release_idempotent(&self, tenant: TenantContext, key: IdempotencyKey) -> Answer<'_, ()> {
        self.call(move |tx| release(tx, &tenant, &key))
    }
}

/// How long a key is remembered.
const KEPT: Duration = Duration::days(1);

/// Takes a key, or tells what became of it.
pub(super) fn begin(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    key: &IdempotencyKey,
    at: OffsetDateTime,
) -> Result<Replay, StoreError> {
    tx.prepare_cached("DELETE FROM idempotency_keys WHERE created_at < ?1")?.execute([time_text(at - KEPT)])?;
    let (org, user) = (tenant.org.to_string(), tenant.user.to_string());
    let found = tx
        .prepare_cached(
            "SELECT request_hash, status, body FROM idempotency_keys WHERE org_id = ?1 AND created_by = ?2 AND route = ?3 AND key = ?4",
        )?
        .query_row(params![org, user, key.route, key.key], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<u16>>(1)?, row.get::<_, Option<String>>(2)?))
        })
        .optional()?;
    match found {
        Some((hash, _, _)) if hash != key.request_hash => Ok(Replay::Mismatch),
        Some((_, Some(status), Some(body))) => Ok(Replay::Done { status, body }),
        Some(_) => Ok(Replay::InFlight),
        None => {
            tx.prepare_cached(
                "INSERT INTO idempotency_keys (org_id, created_by, created_at, route, key, request_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![org, user, time_text(at), key.route, key.key, key.request_hash])?;
            Ok(Replay::Fresh)
        }
    }
}

/// Stores the answer of a request.
pub(super) fn finish(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    key: &IdempotencyKey,
    status: u16,
    body: &str,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE idempotency_keys SET status = ?5, body = ?6 WHERE org_id = ?1 AND created_by = ?2 AND route = ?3 AND key = ?4",
    )?
    .execute(params![tenant.org.to_string(), tenant.user.to_string(), key.route, key.key, status, body])?;
    Ok(())
}

/// Frees a key whose request had no effect.
pub(super) fn release(tx: &Transaction<'_>, tenant: &TenantContext, key: &IdempotencyKey) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM idempotency_keys WHERE org_id = ?1 AND created_by = ?2 AND route = ?3 AND key = ?4",
    )?
    .execute(params![tenant.org.to_string(), tenant.user.to_string(), key.route, key.key])?;
    Ok(())
}
