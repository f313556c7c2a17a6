//! Table `viewers`: leases of those who look at a terminal now.

use std::time::Duration;

use agentapi_shared::audit::entry::time_text;
use agentapi_shared::{OrgId, SessionId, ViewerId};
use rusqlite::{Transaction, params};
use serde_json::json;
use time::OffsetDateTime;

use super::{Sqlite, audit, organizations, rows, sessions};
use crate::capability::Capability;
use crate::clock;
use crate::store::records::{AuditEntry, NewViewer, TenantContext};
use crate::store::{Answer, Scope, StoreError, ViewerStore};

/// A lease that nobody renewed for so long goes: until then it may be good again, after an outage.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// The job in whose name the ends of those are recorded.
const LEASES: &str = "leases";

impl ViewerStore for Sqlite {
    fn attach_viewer(&self, tenant: TenantContext, new: NewViewer, audit: AuditEntry) -> Answer<'_, bool> {
        self.call(move |tx| attach(tx, &tenant, new, &audit, clock::now()))
    }

    fn detach_viewer(&self, tenant: TenantContext, viewer: ViewerId, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| {
            organizations::require(tx, &tenant, Capability::OrganizationView)?;
            remove(tx, &tenant, viewer)?;
            organizations::record(tx, &tenant, tenant.org, &audit)
        })
    }

    fn renew_viewers(&self, viewers: Vec<ViewerId>, lease: Duration) -> Answer<'_, Vec<ViewerId>> {
        self.call(move |tx| {
            let until = time_text(clock::now() + lease);
            let mut renew = tx.prepare_cached("UPDATE viewers SET leased_until = ?2 WHERE id = ?1")?;
            let mut kept = Vec::with_capacity(viewers.len());
            for viewer in viewers {
                if renew.execute(params![viewer.to_string(), until])? > 0 {
                    kept.push(viewer);
                }
            }
            Ok(kept)
        })
    }
}

fn attach(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    new: NewViewer,
    audit: &AuditEntry,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    organizations::require(tx, tenant, Capability::TerminalView)?;
    sessions::get(tx, &Scope::Tenant(tenant.clone()), new.session)?;
    let replaced = match new.replaces.filter(|replaced| *replaced != new.id) {
        Some(replaced) => remove(tx, tenant, replaced)?,
        None => false,
    };
    claim(tx, tenant.org, new.id, now)?;
    tx.prepare_cached(
        "INSERT INTO viewers (id, org_id, created_by, created_at, session_id, leased_until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO NOTHING",
    )?
    .execute(params![
        new.id.to_string(),
        tenant.org.to_string(),
        tenant.user.to_string(),
        time_text(now),
        new.session.to_string(),
        time_text(now + new.lease),
    ])?;
    organizations::record(tx, tenant, tenant.org, audit)?;
    Ok(replaced)
}

/// Removes leases that nobody renewed for a day, each with the record of an end that nobody told.
pub(super) fn sweep(tx: &Transaction<'_>, now: OffsetDateTime) -> Result<u64, StoreError> {
    let over = tx
        .prepare_cached("DELETE FROM viewers WHERE leased_until < ?1 RETURNING id, org_id, session_id")?
        .query_map([time_text(now - KEPT)], |row| {
            Ok((rows::id(row, "id")?, rows::id(row, "org_id")?, rows::id(row, "session_id")?))
        })?
        .collect::<rusqlite::Result<Vec<(ViewerId, OrgId, SessionId)>>>()?;
    for (viewer, org, session) in &over {
        let detail = json!({ "connection": viewer, "reason": "lease over" });
        let entry = AuditEntry { session: Some(*session), ..AuditEntry::fact(*org, LEASES, "terminal.detach", detail) };
        audit::insert(tx, &Scope::System, *org, &entry)?;
    }
    Ok(over.len() as u64)
}

/// Removes a viewer of the caller's; whether it was there.
fn remove(tx: &Transaction<'_>, tenant: &TenantContext, viewer: ViewerId) -> Result<bool, StoreError> {
    let removed = tx
        .prepare_cached("DELETE FROM viewers WHERE id = ?1 AND org_id = ?2 AND created_by = ?3")?
        .execute([viewer.to_string(), tenant.org.to_string(), tenant.user.to_string()])?;
    Ok(removed > 0)
}

/// Refuses a viewer that would be one too many. Exact: there is one writer. One that is there already does not stand in its own way.
fn claim(tx: &Transaction<'_>, org: OrgId, viewer: ViewerId, now: OffsetDateTime) -> Result<(), StoreError> {
    let max: Option<u32> = tx
        .prepare_cached("SELECT viewers_max FROM organizations WHERE id = ?1")?
        .query_row([org.to_string()], |row| row.get(0))?;
    let Some(max) = max else { return Ok(()) };
    // Nothing beyond the limit is counted.
    let found: u32 = tx
        .prepare_cached(
            "SELECT COUNT(*) FROM (SELECT 1 FROM viewers WHERE org_id = ?1 AND id <> ?2 AND leased_until > ?3 LIMIT ?4)",
        )?
        .query_row(params![org.to_string(), viewer.to_string(), time_text(now), max], |row| row.get(0))?;
    if found >= max { Err(StoreError::Quota("quota_viewers".to_owned())) } else { Ok(()) }
}
