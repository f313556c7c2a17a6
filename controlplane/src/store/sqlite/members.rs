//! Tables `memberships` and `invitations`.

use agentapi_shared::api::InvitedTo;
use agentapi_shared::audit::entry::time_text;
use agentapi_shared::{InvitationId, OrgId, UserId};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use time::OffsetDateTime;

use super::organizations::{bind_logins, record, require, require_address, role_of};
use super::{Sqlite, rows};
use crate::capability::{Capability, Role};
use crate::clock;
use crate::store::records::{AuditEntry, InvitationRecord, MemberRecord, NewInvitation, TenantContext};
use crate::store::{Answer, MemberStore, StoreError};

impl MemberStore for Sqlite {
    fn members(&self, tenant: TenantContext) -> Answer<'_, Vec<MemberRecord>> {
        self.call(move |tx| list(tx, &tenant))
    }

    fn set_member_role(&self, tenant: TenantContext, user: UserId, role: Role, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| set_role(tx, &tenant, user, role, &audit))
    }

    fn remove_member(&self, tenant: TenantContext, user: UserId, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| remove(tx, &tenant, user, &audit))
    }

    fn invitations(&self, tenant: TenantContext) -> Answer<'_, Vec<InvitationRecord>> {
        self.call(move |tx| invitations(tx, &tenant))
    }

    fn create_invitation(&self, tenant: TenantContext, new: NewInvitation, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| invite(tx, &tenant, &new, &audit))
    }

    fn revoke_invitation(&self, tenant: TenantContext, id: InvitationId, audit: AuditEntry) -> Answer<'_, ()> {
        self.call(move |tx| revoke(tx, &tenant, id, &audit))
    }

    fn invited_to(&self, org: OrgId, token_hash: String) -> Answer<'_, Option<InvitedTo>> {
        self.call(move |tx| invited_to(tx, org, &token_hash, clock::now()))
    }

    fn accept_invitation(
        &self,
        tenant: TenantContext,
        org: OrgId,
        token_hash: String,
        audit: AuditEntry,
    ) -> Answer<'_, ()> {
        self.call(move |tx| accept(tx, &tenant, org, &token_hash, &audit))
    }
}

fn list(tx: &Transaction<'_>, tenant: &TenantContext) -> Result<Vec<MemberRecord>, StoreError> {
    require(tx, tenant, Capability::MemberView)?;
    let found = tx
        .prepare_cached(
            "SELECT m.user_id, m.role, m.created_at, u.name, u.email, u.disabled_at IS NOT NULL AS disabled
             FROM memberships AS m JOIN users AS u ON u.id = m.user_id WHERE m.org_id = ?1 ORDER BY m.user_id",
        )?
        .query_map([tenant.org.to_string()], read)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(found)
}

/// The role of a member, whether shut out or not.
fn member(tx: &Transaction<'_>, org: OrgId, user: UserId) -> Result<Role, StoreError> {
    let sql = "SELECT role FROM memberships WHERE org_id = ?1 AND user_id = ?2";
    Ok(tx.query_row(sql, [org.to_string(), user.to_string()], |row| rows::word(row, "role"))?)
}

/// Refuses to have taken the last owner away who can act as such: whoever is shut out or erased keeps the role, and is of no use. Asked when an
/// owner was changed only: where none is left already, everybody else may still change and leave.
fn keep_an_owner(tx: &Transaction<'_>, org: OrgId) -> Result<(), StoreError> {
    let sql = "SELECT COUNT(*) FROM memberships AS m JOIN users AS u ON u.id = m.user_id AND u.disabled_at IS NULL
               WHERE m.org_id = ?1 AND m.role = 'owner'";
    let owners: u32 = tx.query_row(sql, [org.to_string()], |row| row.get(0))?;
    if owners == 0 { Err(StoreError::Refused("last_owner".to_owned())) } else { Ok(()) }
}

fn set_role(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    user: UserId,
    role: Role,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    let own = require(tx, tenant, Capability::MemberManage)?;
    let before = member(tx, tenant.org, user)?;
    if [before, role].contains(&Role::Owner) && !own.has(Capability::OwnerGrant) {
        return Err(StoreError::Forbidden);
    }
    tx.execute(
        "UPDATE memberships SET role = ?3 WHERE org_id = ?1 AND user_id = ?2",
        [tenant.org.to_string().as_str(), user.to_string().as_str(), role.as_str()],
    )?;
    if before == Role::Owner {
        keep_an_owner(tx, tenant.org)?;
    }
    record(tx, tenant, tenant.org, audit)
}

fn remove(tx: &Transaction<'_>, tenant: &TenantContext, user: UserId, audit: &AuditEntry) -> Result<(), StoreError> {
    let leaves = user == tenant.user;
    let needed = if leaves { Capability::OrganizationView } else { Capability::MemberManage };
    let own = require(tx, tenant, needed)?;
    let before = member(tx, tenant.org, user)?;
    if before == Role::Owner && !own.has(Capability::OwnerGrant) {
        return Err(StoreError::Forbidden);
    }
    let (org, user, at) = (tenant.org.to_string(), user.to_string(), time_text(audit.at));
    tx.execute("DELETE FROM memberships WHERE org_id = ?1 AND user_id = ?2", [&org, &user])?;
    end_credentials(tx, &org, &user, &at)?;
    if before == Role::Owner {
        keep_an_owner(tx, tenant.org)?;
    }
    record(tx, tenant, tenant.org, audit)
}

/// Ends what a user has in an organisation: whoever comes back one day comes without what they had.
fn end_credentials(tx: &Transaction<'_>, org: &str, user: &str, at: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE api_keys SET revoked_at = ?3 WHERE org_id = ?1 AND user_id = ?2 AND revoked_at IS NULL",
        [org, user, at],
    )?;
    tx.execute("DELETE FROM browser_sessions WHERE org_id = ?1 AND created_by = ?2", [org, user])?;
    tx.execute("DELETE FROM login_codes WHERE org_id = ?1 AND created_by = ?2", [org, user])?;
    tx.execute("DELETE FROM host_enrolments WHERE org_id = ?1 AND created_by = ?2", [org, user])?;
    Ok(())
}

fn invitations(tx: &Transaction<'_>, tenant: &TenantContext) -> Result<Vec<InvitationRecord>, StoreError> {
    require(tx, tenant, Capability::MemberManage)?;
    let found = tx
        .prepare_cached("SELECT * FROM invitations WHERE org_id = ?1 ORDER BY id DESC")?
        .query_map([tenant.org.to_string()], read_invitation)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(found)
}

fn invite(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    new: &NewInvitation,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    let own = require(tx, tenant, Capability::MemberManage)?;
    if new.role == Role::Owner && !own.has(Capability::OwnerGrant) {
        return Err(StoreError::Forbidden);
    }
    tx.execute(
        "INSERT INTO invitations (id, org_id, created_by, created_at, email, role, token_hash, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            new.id.to_string(),
            tenant.org.to_string(),
            tenant.user.to_string(),
            time_text(audit.at),
            new.email.to_lowercase(),
            new.role.as_str(),
            new.token_hash,
            time_text(new.expires_at),
        ],
    )?;
    record(tx, tenant, tenant.org, audit)
}

fn revoke(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    id: InvitationId,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    require(tx, tenant, Capability::MemberManage)?;
    let changed = tx.execute(
        "UPDATE invitations SET revoked_at = ?3
         WHERE org_id = ?1 AND id = ?2 AND accepted_at IS NULL AND revoked_at IS NULL",
        [tenant.org.to_string(), id.to_string(), time_text(audit.at)],
    )?;
    if changed == 0 {
        return Err(StoreError::NotFound);
    }
    record(tx, tenant, tenant.org, audit)
}

fn invited_to(
    tx: &Transaction<'_>,
    org: OrgId,
    token_hash: &str,
    now: OffsetDateTime,
) -> Result<Option<InvitedTo>, StoreError> {
    let found = tx
        .prepare_cached(
            "SELECT o.name, i.role, i.expires_at FROM invitations AS i JOIN organizations AS o ON o.id = i.org_id
             WHERE i.org_id = ?1 AND i.token_hash = ?2 AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > ?3",
        )?
        .query_row(params![org.to_string(), token_hash, time_text(now)], |row| {
            Ok(InvitedTo { organization: row.get(0)?, role: row.get(1)?, expires_at: rows::time(row, "expires_at")? })
        })
        .optional()?;
    Ok(found)
}

fn accept(
    tx: &Transaction<'_>,
    tenant: &TenantContext,
    org: OrgId,
    token_hash: &str,
    audit: &AuditEntry,
) -> Result<(), StoreError> {
    let (at, user) = (time_text(audit.at), tenant.user.to_string());
    require_address(tx, tenant.user)?;
    // Unknown, over, used and meant for somebody else look the same.
    let role: Role = tx
        .query_row(
            "UPDATE invitations SET accepted_at = ?3, accepted_by = ?4
             WHERE org_id = ?1 AND token_hash = ?2 AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > ?3
               AND email = (SELECT lower(u.email) FROM users AS u WHERE u.id = ?4 AND u.email_verified = 1 AND u.disabled_at IS NULL)
             RETURNING role",
            params![org.to_string(), token_hash, at, user],
            |row| rows::word(row, "role"),
        )
        .optional()?
        .ok_or(StoreError::NotFound)?;
    if role_of(tx, org, tenant.user)?.is_some() {
        return Err(StoreError::Refused("already_member".to_owned()));
    }
    tx.execute(
        "INSERT INTO memberships (org_id, user_id, role, created_by, created_at) VALUES (?1, ?2, ?3, ?2, ?4)",
        params![org.to_string(), user, role.as_str(), at],
    )?;
    end_credentials(tx, &org.to_string(), &user, &at)?;
    bind_logins(tx, org, tenant.user)?;
    record(tx, tenant, org, audit)
}

fn read(row: &Row<'_>) -> rusqlite::Result<MemberRecord> {
    Ok(MemberRecord {
        user: rows::id(row, "user_id")?,
        name: row.get("name")?,
        email: row.get("email")?,
        role: rows::word(row, "role")?,
        disabled: row.get("disabled")?,
        created_at: rows::time(row, "created_at")?,
    })
}

fn read_invitation(row: &Row<'_>) -> rusqlite::Result<InvitationRecord> {
    Ok(InvitationRecord {
        id: rows::id(row, "id")?,
        email: row.get("email")?,
        role: rows::word(row, "role")?,
        created_by: rows::id(row, "created_by")?,
        created_at: rows::time(row, "created_at")?,
        expires_at: rows::time(row, "expires_at")?,
        revoked_at: rows::time_option(row, "revoked_at")?,
        accepted_at: rows::time_option(row, "accepted_at")?,
    })
}
