//! What the platform's operator does and sees, across organisations.

use agentapi_shared::api::Quotas;
use agentapi_shared::audit::PLATFORM;
use agentapi_shared::audit::entry::time_text;
use agentapi_shared::{OrgId, UserId};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::json;
use time::OffsetDateTime;

use super::organizations::day_of;
use super::{Sqlite, audit, rows};
use crate::clock;
use crate::store::records::{
    AuditEntry, AuditFilter, AuditPage, Erased, LastOwner, OrganizationOverview, Owner, PersonIn, PersonRecord, Who,
};
use crate::store::{Answer, OperatorStore, Scope, StoreError};

/// In whose name the operator's acts stand in the trails of organisations.
const OPERATOR: &str = "operator";

impl OperatorStore for Sqlite {
    fn overview(&self) -> Answer<'_, Vec<OrganizationOverview>> {
        self.call(|tx| overview(tx, clock::now()))
    }

    fn people(&self, who: Who) -> Answer<'_, Vec<PersonRecord>> {
        self.call(move |tx| people(tx, &who))
    }

    fn disable_user(&self, user: UserId, last_owner: LastOwner, audit: AuditEntry) -> Answer<'_, u64> {
        self.call(move |tx| {
            let stopped = shut_out(tx, user, last_owner, "user.disable", audit.at)?;
            audit::insert(tx, &Scope::System, PLATFORM, &audit)?;
            Ok(stopped)
        })
    }

    fn enable_user(&self, user: UserId, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| enable(tx, user, &audit))
    }

    fn erase_person(&self, user: UserId, last_owner: LastOwner, audit: AuditEntry) -> Answer<'_, Erased> {
        self.call(move |tx| erase(tx, user, last_owner, &audit))
    }

    fn platform_records(&self, filter: AuditFilter) -> Answer<'_, AuditPage> {
        self.call(move |tx| audit::page(tx, PLATFORM, &filter))
    }
}

fn overview(tx: &Transaction<'_>, now: OffsetDateTime) -> Result<Vec<OrganizationOverview>, StoreError> {
    let mut found = tx
        .prepare(
            "SELECT o.*, (SELECT COUNT(*) FROM memberships AS m WHERE m.org_id = o.id) AS members,
                    (SELECT COUNT(*) FROM hosts AS h WHERE h.org_id = o.id AND h.revoked_at IS NULL) AS hosts,
                    (SELECT COUNT(*) FROM user_sessions AS s WHERE s.org_id = o.id AND s.state NOT IN ('exited', 'failed', 'lost')) AS running,
                    CASE o.sessions_day WHEN ?1 THEN o.sessions_that_day ELSE 0 END AS today
             FROM organizations AS o ORDER BY o.id",
        )?
        .query_map([day_of(now)?], read_organization)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut owners = tx.prepare(
        "SELECT u.id, u.name, u.email, u.disabled_at IS NOT NULL AS disabled FROM memberships AS m JOIN users AS u ON u.id = m.user_id
         WHERE m.org_id = ?1 AND m.role = 'owner' ORDER BY u.id",
    )?;
    for organization in &mut found {
        organization.owners = owners
            .query_map([organization.id.to_string()], |row| {
                let (id, disabled) = (rows::id(row, "id")?, row.get("disabled")?);
                Ok(Owner { id, name: row.get("name")?, email: row.get("email")?, disabled })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
    }
    Ok(found)
}

fn read_organization(row: &Row<'_>) -> rusqlite::Result<OrganizationOverview> {
    Ok(OrganizationOverview {
        id: rows::id(row, "id")?,
        name: row.get("name")?,
        created_at: rows::time(row, "created_at")?,
        owners: Vec::new(),
        quotas: Quotas {
            sessions_max: row.get("sessions_max")?,
            sessions_per_day_max: row.get("sessions_per_day_max")?,
            viewers_max: row.get("viewers_max")?,
        },
        members: row.get("members")?,
        hosts: row.get("hosts")?,
        sessions_running: row.get("running")?,
        sessions_today: row.get("today")?,
    })
}

fn people(tx: &Transaction<'_>, who: &Who) -> Result<Vec<PersonRecord>, StoreError> {
    let (id, email) = match who {
        Who::User(user) => (Some(user.to_string()), None),
        Who::Email(email) => (None, Some(email)),
    };
    let mut found = tx
        .prepare(
            "SELECT u.id, u.issuer, u.name, u.email, u.disabled_at IS NOT NULL AS disabled, u.subject = 'erased:' || u.id AS erased
             FROM users AS u WHERE u.id = ?1 OR lower(u.email) = lower(?2) ORDER BY u.id",
        )?
        .query_map(params![id, email], |row| {
            Ok(PersonRecord {
                id: rows::id(row, "id")?,
                issuer: row.get("issuer")?,
                name: row.get("name")?,
                email: row.get("email")?,
                disabled: row.get("disabled")?,
                erased: row.get("erased")?,
                organizations: Vec::new(),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for person in &mut found {
        person.organizations = organizations_of(tx, person.id)?;
    }
    Ok(found)
}

/// Where somebody is a member, and where nobody else owns it who is not shut out.
fn organizations_of(tx: &Transaction<'_>, user: UserId) -> Result<Vec<PersonIn>, StoreError> {
    let found = tx
        .prepare(
            "SELECT o.id, o.name, m.role, m.role = 'owner' AND NOT EXISTS (
                 SELECT 1 FROM memberships AS other JOIN users AS u ON u.id = other.user_id AND u.disabled_at IS NULL
                 WHERE other.org_id = o.id AND other.role = 'owner' AND other.user_id <> m.user_id) AS alone
             FROM memberships AS m JOIN organizations AS o ON o.id = m.org_id WHERE m.user_id = ?1 ORDER BY o.id",
        )?
        .query_map([user.to_string()], |row| {
            let (role, alone) = (rows::word(row, "role")?, row.get("alone")?);
            Ok(PersonIn { id: rows::id(row, "id")?, name: row.get("name")?, role, alone })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(found)
}

/// Whether somebody is shut out, and whether they were erased.
fn state_of(tx: &Transaction<'_>, user: UserId) -> Result<(bool, bool), StoreError> {
    let sql = "SELECT disabled_at IS NOT NULL, subject = 'erased:' || id FROM users WHERE id = ?1";
    Ok(tx.query_row(sql, [user.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Ends what somebody is logged in with, stops their sessions, and tells their organisations. Gives how many sessions are stopped.
fn shut_out(
    tx: &Transaction<'_>,
    user: UserId,
    last_owner: LastOwner,
    action: &'static str,
    at: OffsetDateTime,
) -> Result<u64, StoreError> {
    let (disabled, _) = state_of(tx, user)?;
    let organizations = organizations_of(tx, user)?;
    if last_owner == LastOwner::Stays && !disabled && organizations.iter().any(|organization| organization.alone) {
        return Err(StoreError::Refused("last_owner".to_owned()));
    }
    let id = user.to_string();
    let disable = "UPDATE users SET disabled_at = COALESCE(disabled_at, ?2) WHERE id = ?1";
    tx.execute(disable, [&id, &time_text(at)])?;
    for table in ["browser_sessions", "login_codes", "host_enrolments"] {
        tx.execute(&format!("DELETE FROM {table} WHERE created_by = ?1"), [&id])?;
    }
    for PersonIn { id: org, alone, .. } in organizations {
        let detail = json!({ "user": user, "no_owner_left": alone });
        let told = AuditEntry { at, ..AuditEntry::fact(org, OPERATOR, action, detail) };
        audit::insert(tx, &Scope::System, org, &told)?;
    }
    stop_sessions(tx, user, at)
}

fn stop_sessions(tx: &Transaction<'_>, user: UserId, at: OffsetDateTime) -> Result<u64, StoreError> {
    let stopped = tx
        .prepare(
            "UPDATE user_sessions SET desired = 'stop', restarting = 0, generation = generation + 1, revision = revision + 1
             WHERE created_by = ?1 AND state NOT IN ('exited', 'failed', 'lost') AND (desired = 'run' OR restarting)
             RETURNING id, org_id",
        )?
        .query_map([user.to_string()], |row| Ok((rows::id(row, "id")?, rows::id::<OrgId>(row, "org_id")?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for (session, org) in &stopped {
        let entry = AuditEntry::fact(*org, OPERATOR, "session.stop", json!({ "user": user }));
        audit::insert(tx, &Scope::System, *org, &AuditEntry { at, session: Some(*session), ..entry })?;
    }
    Ok(stopped.len() as u64)
}

fn enable(tx: &Transaction<'_>, user: UserId, audit: &AuditEntry) -> Result<(), StoreError> {
    let (_, erased) = state_of(tx, user)?;
    if erased {
        return Err(StoreError::Refused("erased".to_owned()));
    }
    tx.execute("UPDATE users SET disabled_at = NULL WHERE id = ?1", [user.to_string()])?;
    for PersonIn { id: org, .. } in organizations_of(tx, user)? {
        let entry = AuditEntry::fact(org, OPERATOR, "user.enable", json!({ "user": user }));
        audit::insert(tx, &Scope::System, org, &AuditEntry { at: audit.at, ..entry })?;
    }
    audit::insert(tx, &Scope::System, PLATFORM, audit)
}

/// Removes what is personal of somebody, here and beside the audit trail, whose hashes stay as they are.
fn erase(tx: &Transaction<'_>, user: UserId, last_owner: LastOwner, audit: &AuditEntry) -> Result<Erased, StoreError> {
    let sessions = shut_out(tx, user, last_owner, "user.erase", audit.at)?;
    let (id, at) = (user.to_string(), time_text(audit.at));
    let email: Option<String> = tx
        .query_row("SELECT lower(email) FROM users WHERE id = ?1 AND email_verified = 1", [&id], |row| row.get(0))
        .optional()?
        .flatten();
    tx.execute(
        "UPDATE invitations SET email = 'erased@erased.invalid',
                revoked_at = CASE WHEN accepted_at IS NULL THEN COALESCE(revoked_at, ?3) ELSE revoked_at END
         WHERE accepted_by = ?1 OR email = ?2",
        params![id, email, at],
    )?;
    tx.execute(
        "UPDATE users SET name = NULL, email = NULL, email_verified = 0, subject = 'erased:' || id WHERE id = ?1",
        [&id],
    )?;
    tx.execute("UPDATE api_keys SET revoked_at = ?2 WHERE user_id = ?1 AND revoked_at IS NULL", [&id, &at])?;
    tx.execute("DELETE FROM idempotency_keys WHERE created_by = ?1", [&id])?;
    let records = tx.execute("DELETE FROM audit_personal WHERE created_by = ?1", [&id])?;
    audit::insert(tx, &Scope::System, PLATFORM, audit)?;
    Ok(Erased { records: records as u64, sessions })
}
