//! Tables `organizations` and `users`; what an organisation allows and how much of it.

use agentapi_shared::api::{OrganizationSettings, Quotas, SandboxRequest};
use agentapi_shared::audit::entry::time_text;
use agentapi_shared::{OrgId, UserId};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use time::OffsetDateTime;

use super::{Sqlite, audit, expiry, rows};
use crate::capability::{Capability, Role};
use crate::store::records::{
    AuditEntry, Expiry, Founding, FoundingTerms, Identity, OrganizationChange, OrganizationRecord, TenantContext,
};
use crate::store::{Answer, OrganizationStore, Scope, StoreError};

impl OrganizationStore for Sqlite {
    fn organizations(&self, tenant: TenantContext) -> Answer<'_, Vec<(OrganizationRecord, Role)>> {
        self.call(move |tx| list(tx, tenant.user))
    }

    fn create_organization(
        &self,
        tenant: TenantContext,
        org: OrgId,
        name: String,
        by: Founding,
        audit: AuditEntry,
    ) -> Answer<'_, ()> {
        self.call(move |tx| create(tx, &tenant, org, &name, by, &audit))
    }

    fn update_organization(
        &self,
        tenant: TenantContext,
        revision: u64,
        change: OrganizationChange,
        audit: AuditEntry,
    ) -> Answer<'_, ()> {
        self.call(move |tx| update(tx, &tenant, revision, &change, &audit))
    }

    fn set_quotas(&self, org: OrgId, quotas: Quotas, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| set_quotas(tx, org, quotas, &audit))
    }

    fn log_in(&self, identity: Identity) -> Answer<'_, Option<UserId>> {
        self.call(move |tx| log_in(tx, &identity))
    }

    fn expiry(&self, now: OffsetDateTime) -> Answer<'_, Expiry> {
        self.call(move |tx| expiry::look(tx, now))
    }
}

/// The role of somebody who is in an organisation and not shut out.
pub(super) fn role_of(tx: &Connection, org: OrgId, user: UserId) -> Result<Option<Role>, StoreError> {
    Ok(tx
        .prepare_cached(
            "SELECT m.role AS role FROM memberships AS m JOIN users AS u ON u.id = m.user_id AND u.disabled_at IS NULL
             WHERE m.org_id = ?1 AND m.user_id = ?2",
        )?
        .query_row([org.to_string(), user.to_string()], |row| rows::word(row, "role"))
        .optional()?)
}

/// A tenant in the role that it has now, which may not be that its request began with; none: it is in the organisation no longer.
pub(super) fn as_of_now(tx: &Transaction<'_>, tenant: &TenantContext) -> Result<Option<TenantContext>, StoreError> {
    let role = role_of(tx, tenant.org, tenant.user)?;
    Ok(role.map(|role| TenantContext { role, ..tenant.clone() }))
}

/// Refuses a caller who is not in the organisation (for them it does not exist), or without the capability.
pub(super) fn require(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    capability: Capability,
) -> Result<Role, StoreError> {
    let role = role_of(tx, tenant.org, tenant.user)?.ok_or(StoreError::NotFound)?;
    if role.has(capability) { Ok(role) } else { Err(StoreError::Forbidden) }
}

/// Writes the record of something that a caller did in an organisation.
pub(super) fn record(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    org: OrgId,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    let scope = Scope::Tenant(TenantContext { org, ..tenant.clone() });
    audit::insert(tx, &scope, org, audit)
}

fn list(tx: &Transaction<'_>, user: UserId) -> Result<Vec<(OrganizationRecord, Role)>, StoreError> {
    let found = tx
        .prepare_cached(
            "SELECT o.*, m.role AS role FROM memberships AS m JOIN organizations AS o ON o.id = m.org_id
             JOIN users AS u ON u.id = m.user_id AND u.disabled_at IS NULL WHERE m.user_id = ?1 ORDER BY o.id",
        )?
        .query_map([user.to_string()], |row| Ok((read(row)?, rows::word(row, "role")?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(found)
}

fn create(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    org: OrgId,
    name: &str,
    by: Founding,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    let known = "SELECT 1 FROM users WHERE id = ?1 AND disabled_at IS NULL";
    if tx.query_row(known, [tenant.user.to_string()], |_| Ok(())).optional()?.is_none() {
        return Err(StoreError::Unauthenticated);
    }
    let is_rightful = match by {
        Founding::Owner(_) => list(tx, tenant.user)?.iter().any(|(_, role)| role.has(Capability::OwnerGrant)),
        Founding::SignUp(_) => {
            require_address(tx, tenant.user)?;
            list(tx, tenant.user)?.is_empty()
        }
        Founding::Operator => true,
    };
    if !is_rightful {
        return Err(StoreError::Forbidden);
    }
    let (id, user, at) = (org.to_string(), tenant.user.to_string(), time_text(audit.at));
    let FoundingTerms { founded_max, quotas } = by.terms();
    let founded: u32 =
        tx.query_row("SELECT COUNT(*) FROM organizations WHERE created_by = ?1", [&user], |row| row.get(0))?;
    // Exact: there is one writer.
    if founded_max.is_some_and(|max| founded >= max) {
        return Err(StoreError::Quota("quota_organizations".to_owned()));
    }
    tx.execute(
        "INSERT INTO organizations (id, org_id, created_by, created_at, name, sessions_max, sessions_per_day_max, viewers_max)
         VALUES (?1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![id, user, at, name, quotas.sessions_max, quotas.sessions_per_day_max, quotas.viewers_max],
    )?;
    tx.execute(
        "INSERT INTO memberships (org_id, user_id, role, created_by, created_at) VALUES (?1, ?2, 'owner', ?2, ?3)",
        params![id, user, at],
    )?;
    bind_logins(tx, org, tenant.user)?;
    record(tx, tenant, org, audit)
}

/// A login of no organisation becomes one of the first that its user comes to: it ends with the membership, like others.
pub(super) fn bind_logins(tx: &Transaction<'_>, org: OrgId, user: UserId) -> Result<(), StoreError> {
    let sql = "UPDATE browser_sessions SET org_id = ?1 WHERE created_by = ?2 AND org_id IS NULL";
    tx.execute(sql, [org.to_string(), user.to_string()])?;
    Ok(())
}

/// Refuses somebody whose address was not shown to be theirs.
pub(super) fn require_address(tx: &Transaction<'_>, user: UserId) -> Result<(), StoreError> {
    let sql = "SELECT email IS NOT NULL AND email_verified = 1 FROM users WHERE id = ?1 AND disabled_at IS NULL";
    match tx.query_row(sql, [user.to_string()], |row| row.get::<_, bool>(0)).optional()? {
        Some(true) => Ok(()),
        Some(false) => Err(StoreError::Refused("address_not_confirmed".to_owned())),
        None => Err(StoreError::Unauthenticated),
    }
}

fn update(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    revision: u64,
    change: &OrganizationChange,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    require(tx, tenant, Capability::OrganizationManage)?;
    let changed = tx.execute(
        "UPDATE organizations SET name = COALESCE(?3, name), settings = COALESCE(?4, settings), revision = revision + 1
         WHERE id = ?1 AND revision = ?2",
        params![
            tenant.org.to_string(),
            revision,
            change.name,
            change.settings.as_ref().map(rows::json_text).transpose()?,
        ],
    )?;
    if changed == 0 {
        return Err(StoreError::Stale);
    }
    record(tx, tenant, tenant.org, audit)
}

fn set_quotas(tx: &Transaction<'_>, org: OrgId, quotas: Quotas, audit: &AuditEntry) -> Result<(), StoreError> {
    let changed = tx.execute(
        "UPDATE organizations SET sessions_max = ?2, sessions_per_day_max = ?3, viewers_max = ?4 WHERE id = ?1",
        params![org.to_string(), quotas.sessions_max, quotas.sessions_per_day_max, quotas.viewers_max],
    )?;
    if changed == 0 {
        return Err(StoreError::NotFound);
    }
    audit::insert(tx, &Scope::System, org, audit)
}

fn log_in(tx: &Transaction<'_>, identity: &Identity) -> Result<Option<UserId>, StoreError> {
    let found = tx.query_row(
        "INSERT INTO users (id, issuer, subject, name, email, email_verified, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
         ON CONFLICT (issuer, subject) DO UPDATE
         SET name = excluded.name, email = excluded.email, email_verified = excluded.email_verified
         RETURNING id, disabled_at IS NULL AS good",
        params![
            identity.user.to_string(),
            identity.issuer,
            identity.subject,
            identity.name,
            identity.email,
            identity.email_verified,
        ],
        |row| Ok((rows::id(row, "id")?, row.get::<_, bool>("good")?)),
    )?;
    Ok(found.1.then_some(found.0))
}

/// Refuses a session that would be one too many. Exact: there is one writer.
pub(super) fn claim_session(tx: &Transaction<'_>, org: OrgId, at: OffsetDateTime) -> Result<(), StoreError> {
    let (max, day_max, day, that_day) = tx
        .prepare_cached(
            "SELECT sessions_max, sessions_per_day_max, sessions_day, sessions_that_day FROM organizations WHERE id = ?1",
        )?
        .query_row([org.to_string()], |row| {
            Ok((row.get::<_, Option<u32>>(0)?, row.get::<_, Option<u32>>(1)?, row.get::<_, String>(2)?, row.get(3)?))
        })?;
    if let Some(max) = max {
        // Nothing beyond the limit is counted.
        let living: u32 = tx
            .prepare_cached(
                "SELECT COUNT(*) FROM (SELECT 1 FROM user_sessions
                 WHERE org_id = ?1 AND state NOT IN ('exited', 'failed', 'lost') LIMIT ?2)",
            )?
            .query_row(params![org.to_string(), max], |row| row.get(0))?;
        if living >= max {
            return Err(StoreError::Quota("quota_sessions".to_owned()));
        }
    }
    let made: u32 = if day == day_of(at)? { that_day } else { 0 };
    if day_max.is_some_and(|max| made >= max) {
        return Err(StoreError::Quota("quota_sessions_per_day".to_owned()));
    }
    Ok(())
}

/// Counts a session that is made.
pub(super) fn count_session(tx: &Transaction<'_>, org: OrgId, at: OffsetDateTime) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE organizations SET sessions_that_day = CASE sessions_day WHEN ?2 THEN sessions_that_day + 1 ELSE 1 END,
         sessions_day = ?2 WHERE id = ?1",
    )?
    .execute([org.to_string(), day_of(at)?])?;
    Ok(())
}

pub(super) fn day_of(at: OffsetDateTime) -> Result<String, StoreError> {
    Ok(time_text(at).chars().take("2026-01-01".len()).collect())
}

/// What an organisation wants of its sessions.
pub(super) fn settings(tx: &Transaction<'_>, org: OrgId) -> Result<OrganizationSettings, StoreError> {
    let sql = "SELECT settings FROM organizations WHERE id = ?1";
    Ok(tx.prepare_cached(sql)?.query_row([org.to_string()], read_settings)?)
}

/// Refuses an agent that an organisation with these settings does not allow.
pub(super) fn require_agent(settings: &OrganizationSettings, agent: &str) -> Result<(), StoreError> {
    let allowed = settings.agents.as_ref().is_none_or(|agents| agents.iter().any(|one| one == agent));
    if allowed { Ok(()) } else { Err(StoreError::Refused("agent_not_allowed".to_owned())) }
}

/// Refuses a sandbox that it does not allow.
pub(super) fn require_sandbox(settings: &OrganizationSettings, request: &SandboxRequest) -> Result<(), StoreError> {
    let fault = settings.sandbox.as_ref().and_then(|policy| policy.fault(request));
    fault.map_or(Ok(()), |_| Err(StoreError::Refused("sandbox_not_allowed".to_owned())))
}

/// The column of it.
pub(super) fn read_settings(row: &Row<'_>) -> rusqlite::Result<OrganizationSettings> {
    Ok(OrganizationSettings::from_stored(rows::json(row, "settings")?))
}

fn read(row: &Row<'_>) -> rusqlite::Result<OrganizationRecord> {
    Ok(OrganizationRecord {
        id: rows::id(row, "id")?,
        name: row.get("name")?,
        created_at: rows::time(row, "created_at")?,
        settings: read_settings(row)?,
        quotas: Quotas {
            sessions_max: row.get("sessions_max")?,
            sessions_per_day_max: row.get("sessions_per_day_max")?,
            viewers_max: row.get("viewers_max")?,
        },
        revision: row.get("revision")?,
    })
}
