//! Tables `organizations`, `memberships`, `invitations`, `api_keys`, `hosts` and `host_enrolments`: each method is one function of the schema.

use agentapi_shared::api::{InvitedTo, Quotas};
use agentapi_shared::{ApiKeyId, HostId, InvitationId, OrgId, UserId};
use time::OffsetDateTime;

use super::Postgrest;
use crate::capability::Role;
use crate::store::records::{
    ApiKeyRecord, AuditEntry, Expiry, Founding, Identity, InvitationRecord, MadeByKey, MemberRecord, NewApiKey,
    NewEnrolment, NewInvitation, OrganizationChange, OrganizationRecord, Rotation, TenantContext,
};
use crate::store::{Answer, ApiKeyStore, EnrolmentStore, MemberStore, OrganizationStore, Scope};
use agentapi_shared::audit::PLATFORM;

fn record(tenant: &TenantContext, audit: &AuditEntry) -> serde_json::Value {
    audit.argument(tenant.org, &Scope::Tenant(tenant.clone()))
}

impl OrganizationStore for Postgrest {
    fn organizations(&self, tenant: TenantContext) -> Answer<'_, Vec<(OrganizationRecord, Role)>> {
        Box::pin(async move { self.as_caller(&tenant)?.organizations(tenant.user).await })
    }

    fn create_organization(
        &self,
        tenant: TenantContext,
        org: OrgId,
        name: String,
        by: Founding,
        audit: AuditEntry,
    ) -> Answer<'_, ()> {
        Box::pin(async move {
            let audit = audit.argument(org, &Scope::Tenant(tenant.clone()));
            self.as_caller(&tenant)?.create_organization(org, &name, by, audit).await
        })
    }

    fn update_organization(
        &self,
        tenant: TenantContext,
        revision: u64,
        change: OrganizationChange,
        audit: AuditEntry,
    ) -> Answer<'_, ()> {
        Box::pin(async move {
            self.as_caller(&tenant)?.update_organization(revision, &change, record(&tenant, &audit)).await
        })
    }

    fn set_quotas(&self, org: OrgId, quotas: Quotas, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_service().set_quotas(org, quotas, audit.argument(org, &Scope::System)).await })
    }

    fn log_in(&self, identity: Identity) -> Answer<'_, Option<UserId>> {
        Box::pin(async move { self.as_service().log_in(&identity).await })
    }

    fn expiry(&self, now: OffsetDateTime) -> Answer<'_, Expiry> {
        Box::pin(async move { self.as_service().expiry(now).await })
    }
}

impl MemberStore for Postgrest {
    fn members(&self, tenant: TenantContext) -> Answer<'_, Vec<MemberRecord>> {
        Box::pin(async move { self.as_caller(&tenant)?.members().await })
    }

    fn set_member_role(&self, tenant: TenantContext, user: UserId, role: Role, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.set_member_role(user, role, record(&tenant, &audit)).await })
    }

    fn remove_member(&self, tenant: TenantContext, user: UserId, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.remove_member(user, record(&tenant, &audit)).await })
    }

    fn invitations(&self, tenant: TenantContext) -> Answer<'_, Vec<InvitationRecord>> {
        Box::pin(async move { self.as_caller(&tenant)?.invitations().await })
    }

    fn create_invitation(&self, tenant: TenantContext, new: NewInvitation, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.create_invitation(&new, record(&tenant, &audit)).await })
    }

    fn revoke_invitation(&self, tenant: TenantContext, id: InvitationId, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.revoke_invitation(id, record(&tenant, &audit)).await })
    }

    fn invited_to(&self, org: OrgId, token_hash: String) -> Answer<'_, Option<InvitedTo>> {
        Box::pin(async move { self.as_service().invited_to(org, &token_hash).await })
    }

    fn accept_invitation(
        &self,
        tenant: TenantContext,
        org: OrgId,
        token_hash: String,
        audit: AuditEntry,
    ) -> Answer<'_, ()> {
        Box::pin(async move {
            let audit = audit.argument(org, &Scope::Tenant(tenant.clone()));
            self.as_caller(&tenant)?.accept_invitation(org, &token_hash, audit).await
        })
    }
}

impl ApiKeyStore for Postgrest {
    fn api_keys(&self, tenant: TenantContext) -> Answer<'_, Vec<ApiKeyRecord>> {
        Box::pin(async move { self.as_caller(&tenant)?.api_keys().await })
    }

    fn create_api_key(&self, tenant: TenantContext, new: NewApiKey, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.create_api_key(&new, record(&tenant, &audit)).await })
    }

    fn revoke_api_key(
        &self,
        tenant: TenantContext,
        id: ApiKeyId,
        made: MadeByKey,
        audit: AuditEntry,
    ) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.revoke_api_key(id, made, record(&tenant, &audit)).await })
    }
}

impl EnrolmentStore for Postgrest {
    fn create_host_enrolment(&self, tenant: TenantContext, new: NewEnrolment, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.create_host_enrolment(&new, record(&tenant, &audit)).await })
    }

    fn redeem_host_enrolment(
        &self,
        token_hash: String,
        host: HostId,
        credential_hash: String,
        at: OffsetDateTime,
    ) -> Answer<'_, Option<OrgId>> {
        Box::pin(async move { self.as_service().redeem_host_enrolment(&token_hash, host, &credential_hash, at).await })
    }

    fn rotate_host_credential(&self, host: HostId, rotation: Rotation, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move {
            let org = self.as_service().org_of_host(host).await?;
            let audit = audit.argument(org.unwrap_or(PLATFORM), &Scope::Host(host));
            self.as_service().rotate_host_credential(host, &rotation, audit).await
        })
    }

    fn confirm_host_credential(&self, credential_hash: String, others_end_at: OffsetDateTime) -> Answer<'_, ()> {
        Box::pin(async move { self.as_service().confirm_host_credential(&credential_hash, others_end_at).await })
    }

    fn revoke_host(&self, tenant: TenantContext, host: HostId, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.revoke_host(host, record(&tenant, &audit)).await })
    }
}
