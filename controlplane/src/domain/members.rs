//! What callers do with the members of their organisation: see them, give roles, remove, invite, accept.

use agentapi_shared::api::{AcceptInvitation, CreateInvitation, INVITATION_SECONDS, Invitation, InvitedTo, Member};
use agentapi_shared::{InvitationId, UserId};
use serde_json::json;

use super::policy::{self, Action, Principal, SignUp, Visitor};
use super::{DomainError, audit, validate};
use crate::auth::Secret;
use crate::capability::Role;
use crate::clock;
use crate::plane::Plane;
use crate::sockets::Who;
use crate::store::StoreError;
use crate::store::records::{InvitationRecord, NewInvitation};

/// Prefix of an invitation's token, so that scanners of leaked secrets know it.
const TOKEN_PREFIX: &str = "aai_";

const NO_MEMBER: (&str, &str) = ("member_not_found", "member");
const NO_INVITATION: (&str, &str) = ("invitation_not_found", "invitation");

/// Everybody.
pub async fn list(plane: &Plane, principal: &Principal) -> Result<Vec<Member>, DomainError> {
    policy::check(principal, Action::MemberView)?;
    let found = plane.store.members(principal.tenant()).await?;
    let present = found.into_iter().map(|record| Member {
        user_id: record.user,
        name: record.name,
        email: record.email,
        role: record.role.as_str().to_owned(),
        disabled: record.disabled,
        created_at: record.created_at,
    });
    Ok(present.collect())
}

/// Gives a member another role.
pub async fn set_role(plane: &Plane, principal: &Principal, user: UserId, role: &str) -> Result<(), DomainError> {
    check_about(plane, principal, Action::MemberManage, user).await?;
    let role = validate::role(role, &Role::ALL)?;
    let entry = audit::of_organization(principal, "member.role", json!({ "user": user, "role": role }));
    let set = plane.store.set_member_role(principal.tenant(), user, role, entry).await;
    set.map_err(|error| DomainError::of(NO_MEMBER, error))?;
    end_sockets(plane, principal, user);
    Ok(())
}

/// Removes a member; anyone may leave.
pub async fn remove(plane: &Plane, principal: &Principal, user: UserId) -> Result<(), DomainError> {
    let leaves = user == principal.holder.user;
    check_about(plane, principal, if leaves { Action::Membership } else { Action::MemberManage }, user).await?;
    let entry = audit::of_organization(principal, "member.remove", json!({ "user": user }));
    let removed = plane.store.remove_member(principal.tenant(), user, entry).await;
    removed.map_err(|error| DomainError::of(NO_MEMBER, error))?;
    end_sockets(plane, principal, user);
    Ok(())
}

/// Refuses what the caller may not do with a member; whoever is not in the organisation does not exist for them.
async fn check_about(plane: &Plane, principal: &Principal, action: Action, user: UserId) -> Result<(), DomainError> {
    let Err(refused) = policy::check(principal, action) else { return Ok(()) };
    let seen = plane.store.members(principal.tenant()).await?.iter().any(|member| member.user == user);
    Err(if seen { refused } else { DomainError::of(NO_MEMBER, StoreError::NotFound) })
}

/// What somebody opened goes by what they were: they open it again as what they are now.
fn end_sockets(plane: &Plane, principal: &Principal, who: UserId) {
    let within = principal.holder.org;
    let meant = |found: &Who| matches!(found, Who::Member { org, user, .. } if *org == within && *user == who);
    plane.sockets.revoke(|owner| meant(&owner.who));
}

/// Every invitation.
pub async fn invitations(plane: &Plane, principal: &Principal) -> Result<Vec<Invitation>, DomainError> {
    policy::check(principal, Action::MemberManage)?;
    let found = plane.store.invitations(principal.tenant()).await?;
    Ok(found.into_iter().map(present).collect())
}

/// Invites the owner of an address. Gives the token too, which nobody can be shown again.
pub async fn invite(
    plane: &Plane,
    principal: &Principal,
    request: CreateInvitation,
) -> Result<(Invitation, Secret), DomainError> {
    policy::check(principal, Action::MemberManage)?;
    let role = validate::invitation(&request)?;
    if role == Role::Owner {
        policy::check(principal, Action::OwnerGrant)?;
    }
    let (id, token, now) = (InvitationId::generate(), Secret::generate(TOKEN_PREFIX), clock::now());
    let new = NewInvitation {
        id,
        email: request.email.to_lowercase(),
        role,
        token_hash: token.hash(),
        expires_at: validate::later(now, request.expires_in_seconds.unwrap_or(INVITATION_SECONDS)),
    };
    let made = InvitationRecord {
        id,
        email: new.email.clone(),
        role,
        created_by: principal.holder.user,
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
        accepted_at: None,
    };
    // Whose address it is stands in the invitation, and in no record that cannot be erased.
    let entry = audit::of_organization(principal, "invitation.create", json!({ "invitation": id, "role": role }));
    plane.store.create_invitation(principal.tenant(), new, entry).await?;
    Ok((present(made), token))
}

/// Takes one back.
pub async fn revoke_invitation(plane: &Plane, principal: &Principal, id: InvitationId) -> Result<(), DomainError> {
    policy::check(principal, Action::MemberManage)?;
    let entry = audit::of_organization(principal, "invitation.revoke", json!({ "invitation": id }));
    let revoked = plane.store.revoke_invitation(principal.tenant(), id, entry).await;
    revoked.map_err(|error| DomainError::of(NO_INVITATION, error))
}

/// What an invitation is to, for whoever shows its token: to know it is to hold the link.
pub async fn look_up(plane: &Plane, request: AcceptInvitation) -> Result<InvitedTo, DomainError> {
    let hash = Secret::from_text(request.token).hash();
    let found = plane.store.invited_to(request.organization_id, hash).await?;
    found.ok_or_else(|| DomainError::of(NO_INVITATION, StoreError::NotFound))
}

/// Makes the caller a member of an organisation that invited them.
pub async fn accept(plane: &Plane, visitor: &Visitor, request: AcceptInvitation) -> Result<(), DomainError> {
    policy::check_visitor(visitor, SignUp::Invite, Action::Membership)?;
    let org = request.organization_id;
    let hash = Secret::from_text(request.token).hash();
    let entry = audit::of_visitor(visitor, "invitation.accept", json!({ "organization": org }));
    let accepted = plane.store.accept_invitation(visitor.tenant(), org, hash, entry).await;
    accepted.map_err(|error| DomainError::of(NO_INVITATION, error))
}

fn present(record: InvitationRecord) -> Invitation {
    let state = match (record.accepted_at, record.revoked_at) {
        (Some(_), _) => "accepted",
        (None, Some(_)) => "revoked",
        (None, None) if record.expires_at <= clock::now() => "expired",
        (None, None) => "open",
    };
    Invitation {
        id: record.id,
        email: record.email,
        role: record.role.as_str().to_owned(),
        state: state.to_owned(),
        created_by: record.created_by,
        created_at: record.created_at,
        expires_at: record.expires_at,
    }
}
