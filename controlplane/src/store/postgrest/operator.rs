//! What the platform's operator does and sees: jobs of the schema, and the platform's own trail.

use agentapi_shared::UserId;
use agentapi_shared::audit::PLATFORM;
use serde_json::Value;

use super::{Postgrest, audit};
use crate::store::records::{
    AuditEntry, AuditFilter, AuditPage, Erased, LastOwner, OrganizationOverview, PersonRecord, Who,
};
use crate::store::{Answer, OperatorStore, Scope};

fn record(audit: &AuditEntry) -> Value {
    audit.argument(PLATFORM, &Scope::System)
}

impl OperatorStore for Postgrest {
    fn overview(&self) -> Answer<'_, Vec<OrganizationOverview>> {
        Box::pin(async move { self.as_service().overview().await })
    }

    fn people(&self, who: Who) -> Answer<'_, Vec<PersonRecord>> {
        Box::pin(async move { self.as_service().people(&who).await })
    }

    fn disable_user(&self, user: UserId, last_owner: LastOwner, audit: AuditEntry) -> Answer<'_, u64> {
        Box::pin(async move { self.as_service().disable_user(user, last_owner, record(&audit)).await })
    }

    fn enable_user(&self, user: UserId, audit: AuditEntry) -> Answer<'_, ()> {
        Box::pin(async move { self.as_service().enable_user(user, record(&audit)).await })
    }

    fn erase_person(&self, user: UserId, last_owner: LastOwner, audit: AuditEntry) -> Answer<'_, Erased> {
        Box::pin(async move { self.as_service().erase_person(user, last_owner, record(&audit)).await })
    }

    fn platform_records(&self, filter: AuditFilter) -> Answer<'_, AuditPage> {
        Box::pin(async move {
            let service = self.as_service();
            let head = service.platform_head().await?;
            let Some(window) = filter.position.window(head) else { return Ok(AuditPage::default()) };
            let found = service.platform_records(&audit::page(&filter, &window)).await?;
            audit::page_of(found, &filter, &window, head)
        })
    }
}
