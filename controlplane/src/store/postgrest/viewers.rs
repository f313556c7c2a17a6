//! Table `viewers`: leases of those who look at a terminal now. Each method is one function of the schema.

use std::time::Duration;

use agentapi_shared::ViewerId;
use serde_json::{Value, json};

use super::Postgrest;
use super::callers::AsCaller;
use super::client::Function;
use super::jobs::AsService;
use crate::store::records::{AuditEntry, NewViewer, TenantContext};
use crate::store::{Answer, Scope, StoreError, ViewerStore};

fn record(tenant: &TenantContext, audit: &AuditEntry) -> Value {
    audit.argument(tenant.org, &Scope::Tenant(tenant.clone()))
}

impl ViewerStore for Postgrest {
    fn attach_viewer(&self, tenant: TenantContext, new: NewViewer, audit: AuditEntry) -> Answer<'_, bool> {
        Box::pin(async move { self.as_caller(&tenant)?.attach_viewer(new, record(&tenant, &audit)).await })
    }

    fn detach_viewer(&self, tenant: TenantContext, viewer: ViewerId, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_caller(&tenant)?.detach_viewer(viewer, record(&tenant, &audit)).await })
    }

    fn renew_viewers(&self, viewers: Vec<ViewerId>, lease: Duration) -> Answer<'_, Vec<ViewerId>> {
        Box::pin(async move { self.as_service().renew_viewers(&viewers, lease).await })
    }
}

impl AsCaller<'_> {
    async fn attach_viewer(&self, new: NewViewer, audit: Value) -> Result<bool, StoreError> {
        const ATTACH: Function = Function::same("attach_viewer");
        let arguments = json!({
            "p_org": self.org(), "p_viewer": new.id, "p_session": new.session, "p_lease_s": new.lease.as_secs(),
            "p_replaces": new.replaces, "p_audit": audit,
        });
        self.call(ATTACH, arguments).await
    }

    async fn detach_viewer(&self, viewer: ViewerId, audit: Value) -> Result<(), StoreError> {
        const DETACH: Function = Function::same("detach_viewer");
        self.call(DETACH, json!({ "p_org": self.org(), "p_viewer": viewer, "p_audit": audit })).await
    }
}

impl AsService<'_> {
    async fn renew_viewers(&self, viewers: &[ViewerId], lease: Duration) -> Result<Vec<ViewerId>, StoreError> {
        const RENEW: Function = Function::unrecorded("job_renew_viewers");
        self.call(RENEW, json!({ "p_viewers": viewers, "p_lease_s": lease.as_secs() })).await
    }
}
