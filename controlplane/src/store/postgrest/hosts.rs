//! Table `hosts`.

use agentapi_shared::HostId;
use time::OffsetDateTime;

use super::Postgrest;
use crate::store::records::{AuditEntry, HostRecord, TenantContext};
use crate::store::{Answer, HostStore, Scope};
use agentapi_shared::audit::PLATFORM;

impl HostStore for Postgrest {
    fn hosts(&self, tenant: TenantContext) -> Answer<'_, Vec<HostRecord>> {
        Box::pin(async move {
            let found = self.as_caller(&tenant)?.hosts().await?;
            Ok(found.into_iter().map(HostRecord::from).collect())
        })
    }

    fn host(&self, id: HostId) -> Answer<'_, HostRecord> {
        Box::pin(async move { self.as_service().host(id).await.map(HostRecord::from) })
    }

    fn host_connected(&self, host: HostRecord, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move {
            let audit = audit.argument(host.org.unwrap_or(PLATFORM), &Scope::Host(host.id));
            self.as_service().host_connected(&host, audit).await
        })
    }

    fn host_seen(&self, id: HostId, at: OffsetDateTime) -> Answer<'_, ()> {
        Box::pin(async move { self.as_service().host_seen(id, at).await })
    }

    fn outbox_seen(&self, id: HostId) -> Answer<'_, u64> {
        Box::pin(async move { self.as_service().outbox_seen(id).await })
    }
}
