//! Table `audit_logs`: what stands for itself. What goes with a change is written by the function that makes the change.

use super::rows::{self, Actor, PLATFORM};
use super::sessions::actor_of;
use super::{Postgrest, host_of};
use crate::store::records::AuditEntry;
use crate::store::{Answer, AuditStore, OutboxSeen, Scope, StoreError};

impl AuditStore for Postgrest {
    fn audit(&self, scope: Scope, entry: AuditEntry, seen: OutboxSeen) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Scope::Tenant(tenant) = &scope {
                let audit = rows::audit(tenant.org, Actor::tenant(tenant), &entry);
                return self.as_caller(tenant)?.record_audit(audit).await;
            }
            let org = match entry.session {
                None => PLATFORM,
                Some(session) => match self.org_of(session).await {
                    Err(StoreError::NotFound) => PLATFORM,
                    other => other?,
                },
            };
            let audit = rows::audit(org, actor_of(&scope), &entry);
            self.as_service().record_audit(org, host_of(&scope), audit, seen.map(|(_, number)| number)).await
        })
    }
}
