//! What callers do with organisations: make them, see them, change their names and settings.

use agentapi_shared::OrgId;
use agentapi_shared::api::{Membership, Organization, Quotas, UpdateOrganization};
use serde_json::json;

use super::policy::{self, Action, Credential, Principal, SignUp, Visitor};
use super::{DomainError, audit, validate};
use crate::capability::Role;
use crate::plane::Plane;
use crate::store::StoreError;
use crate::store::records::{Founding, FoundingTerms, OrganizationChange, OrganizationRecord, UserHolder};

/// How often a change is computed again because another came in between.
const CHANGE_ATTEMPTS_MAX: u32 = 8;

/// What people may found by themselves, and under which terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foundings {
    /// Who may, beside those who own one.
    pub sign_up: SignUp,
    /// How many one person may be the founder of; none: no limit.
    pub founded_max: Option<u32>,
    /// What a new organisation may have where signing up is open.
    pub quotas: Quotas,
}

impl Foundings {
    /// Nobody founds by hand as many as this, and a program that does is stopped by it. Quotas are enough for some people to try it out on a host that
    /// all share; whoever needs more asks the operator.
    pub const DEFAULT: Self = Self {
        sign_up: SignUp::Invite,
        founded_max: Some(10),
        quotas: Quotas { sessions_max: Some(10), sessions_per_day_max: Some(200), viewers_max: Some(50) },
    };

    /// Terms of the next founding. Where signing up is not open, owners are people whom an operator knows; where it is, a second organisation of
    /// somebody's must not be a way around the quotas of the first.
    #[must_use]
    pub fn terms(&self) -> FoundingTerms {
        let quotas = if self.sign_up == SignUp::Open { self.quotas } else { Quotas::default() };
        FoundingTerms { founded_max: self.founded_max, quotas }
    }
}

const NOT_FOUND: DomainError = DomainError::NotFound { code: "organization_not_found", what: "organisation" };

/// Each organisation that the caller is in, as far as their credential reaches: a key belongs to one.
async fn reached(plane: &Plane, principal: &Principal) -> Result<Vec<(OrganizationRecord, Role)>, DomainError> {
    policy::check(principal, Action::Account)?;
    let mut found = plane.store.organizations(principal.tenant()).await?;
    if let Credential::Token(_) = principal.credential {
        found.retain(|(record, _)| record.id == principal.holder.org);
    }
    Ok(found)
}

/// Where the caller may go.
pub async fn memberships(plane: &Plane, principal: &Principal) -> Result<Vec<Membership>, DomainError> {
    let found = reached(plane, principal).await?.into_iter();
    let present = |(record, role): (OrganizationRecord, Role)| Membership {
        organization_id: record.id,
        organization: record.name,
        role: role.as_str().to_owned(),
    };
    Ok(found.map(present).collect())
}

/// The caller in another organisation of theirs. One that they are not in does not exist.
pub async fn enter(plane: &Plane, principal: Principal, org: OrgId) -> Result<Principal, DomainError> {
    if principal.holder.org == org {
        return Ok(principal);
    }
    let (record, role) = one(plane, &principal, org).await?;
    let holder = UserHolder { org, organization: record.name, role, ..principal.holder };
    Ok(Principal { holder, ..principal })
}

async fn one(plane: &Plane, principal: &Principal, org: OrgId) -> Result<(OrganizationRecord, Role), DomainError> {
    reached(plane, principal).await?.into_iter().find(|(record, _)| record.id == org).ok_or(NOT_FOUND)
}

/// All of them.
pub async fn list(plane: &Plane, principal: &Principal) -> Result<Vec<Organization>, DomainError> {
    let found = reached(plane, principal).await?;
    Ok(found.into_iter().map(|(record, role)| present(principal.holder.org, record, role)).collect())
}

/// One of them.
pub async fn get(plane: &Plane, principal: &Principal, org: OrgId) -> Result<Organization, DomainError> {
    let (record, role) = one(plane, principal, org).await?;
    Ok(present(principal.holder.org, record, role))
}

/// Makes one, with the caller as its owner.
pub async fn create(
    plane: &Plane,
    visitor: &Visitor,
    foundings: Foundings,
    name: String,
) -> Result<Organization, DomainError> {
    policy::check_visitor(visitor, foundings.sign_up, Action::OrganizationCreate)?;
    validate::organization_name("name", &name)?;
    let org = OrgId::generate();
    let by = match visitor {
        Visitor::Member(_) => Founding::Owner(foundings.terms()),
        Visitor::Newcomer(_) => Founding::SignUp(foundings.terms()),
    };
    let detail = json!({ "organization": org, "by": by.as_str(), "quotas": by.terms().quotas });
    let entry = audit::of_visitor(visitor, "organization.create", detail);
    plane.store.create_organization(visitor.tenant(), org, name, by, entry).await?;
    let made = plane.store.organizations(visitor.tenant()).await?;
    let (record, role) = made.into_iter().find(|(record, _)| record.id == org).ok_or(NOT_FOUND)?;
    // A newcomer is in it from here on.
    let current = match visitor {
        Visitor::Member(principal) => principal.holder.org,
        Visitor::Newcomer(_) => org,
    };
    Ok(present(current, record, role))
}

/// Changes name and settings.
pub async fn update(
    plane: &Plane,
    principal: Principal,
    org: OrgId,
    request: UpdateOrganization,
) -> Result<Organization, DomainError> {
    let principal = enter(plane, principal, org).await?;
    policy::check(&principal, Action::OrganizationManage)?;
    let agents: Vec<&str> = plane.agents.iter().map(|agent| agent.name.as_str()).collect();
    validate::update_organization(&request, &agents)?;
    let change = OrganizationChange { name: request.name, settings: request.settings };
    for _ in 0..CHANGE_ATTEMPTS_MAX {
        let (record, _) = one(plane, &principal, org).await?;
        let revision = request.revision.unwrap_or(record.revision);
        let entry = audit::of_organization(&principal, "organization.update", json!({ "settings": change.settings }));
        match plane.store.update_organization(principal.tenant(), revision, change.clone(), entry).await {
            Ok(()) => {
                plane.settings_changed.send_replace(());
                return get(plane, &principal, org).await;
            }
            Err(StoreError::Stale) if request.revision.is_none() => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(DomainError::Busy("too many changes of this organisation at once"))
}

fn present(current: OrgId, record: OrganizationRecord, role: Role) -> Organization {
    Organization {
        current: record.id == current,
        id: record.id,
        name: record.name,
        role: role.as_str().to_owned(),
        settings: record.settings,
        quotas: record.quotas,
        revision: record.revision,
        created_at: record.created_at,
    }
}
